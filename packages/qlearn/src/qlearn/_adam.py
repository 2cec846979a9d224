"""Adam over named parameters, without torch's optimiser class."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.optim.adam import adam

__all__ = ["Adam"]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Adam:
    """Adam (arXiv 1412.6980) with ``betas = (0.9, 0.999)`` and ``eps = 1e-8``, all in one call.

    The arithmetic and the state are those of ``torch.optim.Adam(..., fused=True)``, through the
    function behind it. The class imports torch's compiler as soon as one is made, which takes
    longer than everything else before the first update.

    Args:
        parameters: names and parameters.
        rates: step size of each.
    """

    def __init__(
        self, parameters: Iterable[tuple[str, Tensor]], rates: Mapping[str, float]
    ) -> None:
        self.parameters = dict(parameters)
        self._parts: dict[float, list[str]] = {}
        for name in self.parameters:
            self._parts.setdefault(rates[name], []).append(name)

    @cached_property
    def moments(self) -> dict[str, dict[str, Tensor]]:
        """Of every parameter; made when they are needed, as a policy that only acts needs none."""
        return {
            name: {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
            for name, parameter in self.parameters.items()
        }

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every parameter, given the gradients in their order."""
        of = dict(zip(self.parameters, gradients, strict=True))
        for rate, names in self._parts.items():
            moments = [self.moments[name] for name in names]
            adam(
                [self.parameters[name] for name in names],
                [of[name] for name in names],
                [each["exp_avg"] for each in moments],
                [each["exp_avg_sq"] for each in moments],
                [],
                [each["step"] for each in moments],
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Moments by flat names, ``exp_avg.<parameter>``; empty before the first step."""
        if "moments" not in vars(self):
            return {}
        return {
            f"{moment}.{name}": value
            for name, moments in self.moments.items()
            for moment, value in moments.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of other parameters.
        """
        saved = {name for name in state if name.startswith("step.")}
        mine = {f"step.{name}" for name in self.parameters}
        if saved and saved != mine:
            raise ValueError(
                f"the state is of other parameters: {sorted(saved ^ mine)[:3]} and more are on one "
                "side only; load it into the agent that saved it"
            )
        vars(self).pop("moments", None)
        if saved:
            self.moments = {
                name: {moment: state[f"{moment}.{name}"].clone() for moment in _MOMENTS}
                for name in self.parameters
            }
