"""Networks as fixed functions, so that a loss moves their inputs and not them."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.func import functional_call

__all__ = ["frozen"]


def frozen(module: nn.Module) -> Callable[..., Tensor]:
    """The module's forward with its parameters as constants.

    Gradient flows to the inputs alone. A policy that maximises ``Q(s, pi(s))`` and the critic that
    is trained by TD can then share one summed loss.

    Args:
        module: evaluated with the parameters that it has when this is called.

    Returns:
        A function of the forward's arguments.
    """
    constants = {name: value.detach() for name, value in module.named_parameters()}
    return lambda *inputs: functional_call(module, constants, inputs)
