"""The memoryless SDE by Euler-Maruyama steps, as in the published implementations."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._interpolant import LINEAR, Interpolant
from flowsde._kernel import Previous, StepCoefficients, TransitionKernel, coefficient_like
from flowsde._time_grid import TimeGrid, whole_grid, widths


@dataclass(frozen=True, eq=False)
class MemorylessEuler(TransitionKernel):
    """Euler-Maruyama steps of `dX = (2 v - kappa X) dt + g dB`, `g^2 = 2 eta`.

    K steps of h = 1/K at t_k = k h. Where the coefficients would be singular their times are
    shifted by h: `kappa_k = kappa(t_k + h)`, `g_k^2 = 2 beta(t_k - h) w(t_k) / alpha(t_k + h)` with
    `w` the interpolant's Wronskian, which for the linear one is the published
    `g_k^2 = 2 (1 - t_k + h) / (t_k + h)`. The last step is an ODE step without noise,
    `x_K = x_{K-1} + h v`, sampled with the base velocity as published (`final_velocity` of
    `sample_path`); `mean` and `stds` keep the SDE's values there because the published KL,
    adjoint and matching loss include that step.

    On a grid of times h is the length of each step, `h_k = t_{k+1} - t_k`, in all of this.

    Source: QAM (arXiv 2601.14234) and TRQAM (arXiv 2605.27079); memoryless noise from Adjoint
    Matching (arXiv 2409.08861).

    Attributes:
        steps: Number of steps K.
        event_ndim: Number of trailing axes that make up one sample.
        control_offset: 0 regresses step k on a_k (published), 1 on a_{k+1}, the adjoint that the
            optimal control of this discrete chain uses.
        interpolant: The schedule the velocity was trained with.
        adjoint_time: "shifted" evaluates the base velocity of the adjoint at t_k + h (published),
            "consistent" at t_k, where the step itself evaluates it.
        grid: Times of the steps from noise to data, or a scheduler's sigmas; see `time_grid`.
            Equal steps if not given.

    Raises:
        ValueError: For a step count below 1, a bad grid or an unknown option.
    """

    interpolant: Interpolant = LINEAR
    adjoint_time: Literal["shifted", "consistent"] = "shifted"
    grid: TimeGrid | None = None

    def __post_init__(self) -> None:
        self._check(self.interpolant, self.grid)
        if self.adjoint_time not in ("shifted", "consistent"):
            raise ValueError(
                f"adjoint_time must be 'shifted' or 'consistent', got {self.adjoint_time!r}"
            )
        path = self.interpolant
        if self.grid is None:
            lengths = [1.0 / self.steps] * self.steps
            t = torch.arange(self.steps, dtype=torch.float64, device="cpu") * lengths[0]
        else:
            times = whole_grid(self.grid)
            lengths = widths(times)
            t = torch.tensor(times[:-1], dtype=torch.float64, device="cpu")
        h = torch.tensor(lengths, dtype=torch.float64, device="cpu")
        after, before = t + h, t - h
        kappa = path.kappa(after)
        g_squared = 2.0 * path.beta(before) * path.wronskian(t) / path.alpha(after)
        steps = list(zip(lengths, kappa.tolist(), g_squared.tolist(), strict=True))
        stds = tuple(math.sqrt(length * value) for length, _, value in steps)
        coefficients = StepCoefficients(
            times=tuple(t.tolist()),
            adjoint_times=tuple((after if self.adjoint_time == "shifted" else t).tolist()),
            input_scales=(1.0,) * self.steps,
            decays=tuple(1.0 - length * value for length, value, _ in steps),
            gains=tuple(2.0 * length for length in lengths),
            stds=stds,
            noise_stds=(*stds[:-1], 0.0),
        )
        object.__setattr__(self, "coefficients", coefficients)

    def sampled_mean(
        self,
        state: Float[Tensor, "*shape"],
        velocity: Float[Tensor, "*shape"],
        k: int,
        previous: Previous | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Mean of the transition as it is sampled: the last step follows the flow ODE."""
        if k == self.steps - 1:
            if self.grid is None:
                return state + velocity / self.steps
            return state + 0.5 * coefficient_like(self.gains[k], state) * velocity
        return self.mean(state, velocity, k, previous)
