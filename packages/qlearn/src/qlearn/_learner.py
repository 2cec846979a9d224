"""One optimisation step for many replicas: clip, move the targets, Adam."""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qlearn._adam import Adam
from qlearn._arithmetic import without_autocast
from qlearn._ema import ema_update
from qlearn._gradients import GradientGuard, GradientReport

__all__ = ["Learner"]


class Learner:
    """Adam on a per-replica loss, with one gradient clip per replica and lagging target networks.

    The order of one step is that of the published implementations (QAM, TRQAM): gradients, one
    global-norm clip over all parameters of a replica together, target networks from the parameters
    of *before* the step, then Adam. Nothing in it waits for the device.

    Args:
        parameters: names and trained parameters; those that require no gradient are left out. Of
            several replicas each has the leading axis ``R``; one replica may be a plain module,
            with parameters of any shape.
        targets: pairs ``(target, online)`` of modules with equal parameter shapes.
        replicas: ``R``, the length of the loss; it is never guessed from the shapes.
        learning_rate: Adam's step size; ``betas = (0.9, 0.999)``, ``eps = 1e-8``.
        learning_rates: other step sizes for parts, by part of a name: ``{"encoder": 1e-5}`` is for
            parameters such as ``policy.encoder.conv.weight``. The longest that fits holds.
        target_rate: ``tau`` of ``target <- tau * online + (1 - tau) * target``.
        target_every: the targets move at every step of this multiple, counted from 1.
        max_gradient_norm: clip threshold per replica; ``None`` leaves gradients as they are.

    Attributes:
        names: names of the trained parameters.
        guard: which replica failed, and at which of ``names``.
        failed_at: ``(R,)``, number of the step whose gradient was not finite, or -1.

    Raises:
        ValueError: no parameters, one without the replica axis, a threshold that is not positive,
            ``target_every`` below 1, or a learning rate of no parameter.
    """

    def __init__(
        self,
        parameters: Iterable[tuple[str, nn.Parameter]],
        targets: Sequence[tuple[nn.Module, nn.Module]] = (),
        *,
        replicas: int,
        learning_rate: float = 3e-4,
        learning_rates: Mapping[str, float] | None = None,
        target_rate: float = 0.005,
        target_every: int = 1,
        max_gradient_norm: float | None = 1.0,
    ) -> None:
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        self.names = tuple(name for name, _ in named)
        self.parameters = [parameter for _, parameter in named]
        if not named:
            raise ValueError("nothing to train: no parameter requires a gradient")
        self.replicas = replicas
        self.guard = GradientGuard(self.parameters, max_gradient_norm, replicas=replicas)
        if target_every < 1:
            raise ValueError(f"target_every must be at least 1, got {target_every}")
        self.target_rate, self.target_every = target_rate, target_every
        self._targets = [p for target, _ in targets for p in target.parameters()]
        self._onlines = [p for _, online in targets for p in online.parameters()]
        self.adam = Adam(named, _rates(named, learning_rate, learning_rates or {}))
        failed = self.guard.first_bad
        self.failed_at = torch.full_like(failed, -1)
        self._steps = failed.new_zeros(())

    def step(self, loss: Float[Tensor, "R"]) -> GradientReport:
        """One update from the losses of all replicas.

        Args:
            loss: one loss per replica; replicas do not mix because their parameters do not.

        Returns:
            Gradient norms and flags of every replica.

        Raises:
            ValueError: the loss is not one number per replica.
        """
        return self.apply(self.gradients(loss))

    def gradients(self, loss: Float[Tensor, "R"]) -> tuple[Tensor, ...]:
        """Gradients of all replicas' losses, in the order of :attr:`parameters`.

        For micro-batches: sum those of the parts' losses, each divided by the number of parts, and
        hand the sum to :meth:`apply`.

        Raises:
            ValueError: the loss is not one number per replica.
        """
        if loss.shape != (self.replicas,):
            raise ValueError(
                f"the loss has shape {tuple(loss.shape)}, expected ({self.replicas},): one number "
                f"for each replica, of which the learner was told replicas={self.replicas}"
            )
        with without_autocast(loss.device.type):
            # A plain module may have parts that this loss does not reach.
            return torch.autograd.grad(
                loss.sum(), self.parameters, allow_unused=True, materialize_grads=True
            )

    def apply(self, gradients: Sequence[Tensor]) -> GradientReport:
        """One update from gradients in the order of :attr:`parameters`."""
        report: GradientReport = self.guard(gradients)
        self._steps += 1
        first = self.guard.failed & (self.failed_at < 0)
        self.failed_at.copy_(torch.where(first, self._steps, self.failed_at))
        if self._targets:
            ema_update(self._targets, self._onlines, self._rate())
        self.adam.step(report.gradients)
        return report

    def _rate(self) -> float | Float[Tensor, ""]:
        """The targets' rate at this step, 0 between two moves, without asking the device."""
        if self.target_every == 1:
            return self.target_rate
        moves = self._steps % self.target_every == 0
        return moves.to(self._targets[0].dtype) * self.target_rate

    def state_dict(self) -> dict[str, Tensor]:
        """Adam's moments, the step count and the failure record, by flat names."""
        state = {f"guard.{name}": value for name, value in self.guard.state_dict().items()}
        state |= {"failed_at": self.failed_at, "steps": self._steps}
        state |= {f"adam.{name}": value for name, value in self.adam.state_dict().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken.

        Raises:
            ValueError: the state is of other parameters.
        """
        self.adam.load_state_dict(_below("adam.", state))
        self.guard.load_state_dict(_below("guard.", state))
        self.failed_at.copy_(state["failed_at"])
        self._steps.copy_(state["steps"])


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


def _rates(
    named: Sequence[tuple[str, nn.Parameter]], usual: float, rates: Mapping[str, float]
) -> dict[str, float]:
    """Step size of every parameter: one, unless parts have learning rates of their own."""
    for part, rate in rates.items():
        if not 0.0 <= rate < math.inf:
            raise ValueError(f"the learning rate of {part!r} is {rate}; expected one of at least 0")
    found = {name: _rate_of(name, usual, rates) for name, _ in named}
    unknown = [part for part in rates if not any(_is_part(part, name) for name in found)]
    if unknown:
        tops = sorted({name.rpartition(".")[0] for name in found})
        raise ValueError(
            f"learning_rates names {unknown[0]!r}, but no trained parameter is there; they are in "
            + ", ".join(tops[:8])
        )
    return found


def _rate_of(name: str, usual: float, rates: Mapping[str, float]) -> float:
    fitting = [part for part in rates if _is_part(part, name)]
    return rates[max(fitting, key=len)] if fitting else usual


def _is_part(part: str, name: str) -> bool:
    """Whether whole words of a dotted name are ``part``."""
    return f".{part}." in f".{name}."
