"""Noised samples as a path: what a diffusion model is pretrained on, in place of an SDE rollout."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import along_path, at_least_float32
from flowsde._interpolant import LINEAR, Interpolant
from flowsde._kernel import Previous, StepCoefficients, TransitionKernel
from flowsde._path import Path
from flowsde._time_grid import TimeGrid, whole_grid, widths


@dataclass(frozen=True, eq=False)
class BridgeKernel(TransitionKernel):
    """Weights of the memoryless SDE at the states of `bridge_path`, one per interval of [0, 1].

    M intervals of h = 1/M, or those of a grid with their own lengths h_j in all of this. With
    `at="ends"` interval j is represented by its end `t_j = (j + 1) h` and the noise is shifted by h
    as in `MemorylessEuler`, `g_j^2 = 2 beta(t_j - h) w(t_j) / alpha(t_j + h)` with `w` the
    interpolant's Wronskian: for the linear one the published `2 (1 - t_j + h) / (t_j + h)` of SQAM
    (arXiv 2610.10437). With `at="midpoints"` it is `t_j = (j + 1/2) h` and `g_j^2 = 2 eta(t_j)`,
    which needs no shift.

    So path KL and matching loss are quadratures of the same integrals as on an SDE path. This is no
    chain that could be sampled: its states do not follow from each other. The law of a state is
    that of the memoryless SDE if the sample's law is that of a flow's samples, and so are the
    sums above; for any other velocity field in between they are those of the noised samples.

    Attributes:
        steps: Number of intervals M.
        event_ndim: Number of trailing axes that make up one sample.
        control_offset: 1; the adjoint of interval j is that of its state.
        interpolant: The schedule the velocity was trained with.
        at: Which time stands for an interval.
        grid: Ends of the intervals from noise to data, or a scheduler's sigmas; see `time_grid`.
            Equal intervals if not given.

    Raises:
        ValueError: For a step count below 1, a bad grid or an unknown option.
    """

    control_offset: int = 1
    interpolant: Interpolant = LINEAR
    at: Literal["ends", "midpoints"] = "ends"
    grid: TimeGrid | None = None

    def __post_init__(self) -> None:
        self._check(self.interpolant, self.grid)
        if self.control_offset != 1:
            raise ValueError(f"control_offset of a BridgeKernel is 1, got {self.control_offset!r}")
        if self.at not in ("ends", "midpoints"):
            raise ValueError(f"at must be 'ends' or 'midpoints', got {self.at!r}")
        path = self.interpolant
        if self.grid is None:
            lengths = [1.0 / self.steps] * self.steps
            count = torch.arange(self.steps, dtype=torch.float64, device="cpu")
            ends, middles = (count + 1.0) / self.steps, (count + 0.5) / self.steps
        else:
            points = whole_grid(self.grid)
            lengths = widths(points)
            ends = torch.tensor(points[1:], dtype=torch.float64, device="cpu")
            middles = ends - 0.5 * ends.new_tensor(lengths)
        h = torch.tensor(lengths, dtype=torch.float64, device="cpu")
        if self.at == "ends":
            t = ends
            g_squared = 2.0 * path.beta(t - h) * path.wronskian(t) / path.alpha(t + h)
        else:
            t = middles
            g_squared = 2.0 * path.eta(t)
        stds = tuple(
            math.sqrt(h * value) for h, value in zip(lengths, g_squared.tolist(), strict=True)
        )
        times = tuple(t.tolist())
        coefficients = StepCoefficients(
            times=times,
            adjoint_times=times,
            input_scales=(1.0,) * self.steps,
            decays=(1.0,) * self.steps,
            gains=tuple(2.0 * length for length in lengths),
            stds=stds,
            noise_stds=stds,
        )
        object.__setattr__(self, "coefficients", coefficients)

    def mean(
        self,
        state: Float[Tensor, "*shape"],
        velocity: Float[Tensor, "*shape"],
        k: int,
        previous: Previous | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Refused: the states of a bridge do not follow from each other.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "a BridgeKernel has no transitions to sample or to pull an adjoint through: build its "
            "path with bridge_path, or use MemorylessEuler for an SDE path"
        )


def bridge_path(
    kernel: BridgeKernel,
    sample: Float[Tensor, "*shape"],
    noise: Float[Tensor, "steps *shape"],
) -> Path:
    """Noise samples anew at every time of the kernel: `x_j = alpha(t_j) x_1 + beta(t_j) e_j`.

    The memoryless SDE makes x_1 independent of x_0, so these are its marginals given x_1: SQAM
    (arXiv 2610.10437), Reinforce Adjoint Matching (arXiv 2605.10759).

    Args:
        kernel: The times.
        sample: x_1, (*batch, *event), for instance from `ode_sample`.
        noise: Standard normal e_j, one slice per state, (M, *batch, *event).

    Returns:
        A path with the M states as network arguments. Its `states` begin with the noise e_1, the
        state at t=0, and its end `sample` is x_1 with at="ends", the last state otherwise.

    Raises:
        ValueError: If `noise` has not the shape (M, *sample.shape).
    """
    if noise.shape != (kernel.steps, *sample.shape):
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}; expected (steps, *sample.shape) = "
            f"{(kernel.steps, *sample.shape)}"
        )
    start = kernel.start(sample)
    t = along_path(kernel.times, noise.to(at_least_float32(noise)))
    inputs = kernel.interpolant.interpolate(noise, start.expand_as(noise), t).to(start.dtype)
    return Path(states=torch.cat([noise[:1], inputs]), inputs=inputs, kernel=kernel)
