"""Interpolants from the schedulers of Meta's `flow_matching`, or any function of their form."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from flowsde._interpolant import Interpolant


class ScheduleValues(Protocol):
    """What a schedule returns at times t; the fields are named as in `flow_matching`."""

    @property
    def alpha_t(self) -> Tensor:
        """Weight of the data."""

    @property
    def sigma_t(self) -> Tensor:
        """Weight of the noise."""

    @property
    def d_alpha_t(self) -> Tensor:
        """Time derivative of `alpha_t`."""

    @property
    def d_sigma_t(self) -> Tensor:
        """Time derivative of `sigma_t`."""


@dataclass(frozen=True, slots=True)
class ScheduleInterpolant(Interpolant):
    """The interpolant of a schedule `t -> (alpha_t, sigma_t, d_alpha_t, d_sigma_t)`.

    `ScheduleInterpolant(VPScheduler())` makes kernels and conversions follow the schedule that a
    model of `flow_matching` was trained with; time runs from noise at t=0 to data at t=1 there
    too. `CondOTScheduler` and `CosineScheduler` are `LinearInterpolant` and `CosineInterpolant`.

    Attributes:
        schedule: The scheduler, or any callable with such a result.
    """

    schedule: Callable[[Tensor], ScheduleValues]

    def alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Weight of the data."""
        return self.schedule(t).alpha_t

    def beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Weight of the noise."""
        return self.schedule(t).sigma_t

    def d_alpha(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Derivative of `alpha` in t."""
        return self.schedule(t).d_alpha_t

    def d_beta(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Derivative of `beta` in t."""
        return self.schedule(t).d_sigma_t
