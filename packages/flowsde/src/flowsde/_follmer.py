"""The memoryless SDE as a Brownian motion with drift on a finite horizon (a Foellmer process)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flowsde._interpolant import LINEAR, Interpolant
from flowsde._kernel import Coefficients, StepCoefficients, TransitionKernel
from flowsde._time_grid import TimeGrid, whole_grid


@dataclass(frozen=True, eq=False)
class FollmerKernel(TransitionKernel):
    """Euler steps of `dW = q du + dB_u` from W = 0 at u = 0 to the sample at u = scale^2.

    With the ratio `r = alpha/beta`, `s = r^2` and `p = 1/scale^2`, the memoryless SDE of any
    interpolant becomes a unit Brownian motion with drift in the coordinates

        W = x r / (beta (p + s)),    u = 1/p - 1/(p + s),    q = (p + s) (x1hat - W),

    where `x1hat` is the data prediction of the velocity at x. Noise is uniform, the drift is
    bounded and nothing is singular, so every step, the last one included, is a Gaussian
    transition and the discrete path KL is exact for the chain. One step is the convex
    combination `W' = (1 - w) W + w x1hat + sqrt(w / (p + s)) eps`, `w = (s' - s)/(p + s')`.
    For data N(m, scale^2) the drift is constant along a path and any number of steps is exact.
    As scale -> 0 the steps become those that are exact for a frozen data prediction.

    The first state is x_0 itself: W starts at 0, and the network is asked at t=0 with x_0.

    Source: Foellmer drift and stochastic localisation, e.g. Montanari, "Sampling, diffusions, and
    stochastic localization" (arXiv 2305.10690), in the time of the flow.

    Attributes:
        steps: Number of steps K, one network evaluation each.
        event_ndim: Number of trailing axes that make up one sample.
        control_offset: 1 regresses step k on a_{k+1}, the adjoint of this discrete chain.
        interpolant: The schedule the velocity was trained with.
        scale: Standard deviation of the data, one number or values that broadcast to the event
            shape (a tensor on the device of the samples), in units of the data. Data narrower
            than this come out too wide and data wider than this too narrow, at first order in 1/K.
        grid: Network times: "time" spaces t evenly, "clock" spaces u evenly (for the geometric
            mean of the scales); or the times of the steps, or a scheduler's sigmas: see
            `time_grid`.

    Raises:
        ValueError: For impossible sizes, a scale that is not positive, or a bad grid.
    """

    control_offset: int = 1
    interpolant: Interpolant = LINEAR
    scale: float | Sequence[float] | Tensor = 1.0
    grid: Literal["time", "clock"] | TimeGrid = "time"

    def __post_init__(self) -> None:
        self._check(self.interpolant, None if isinstance(self.grid, str) else self.grid)
        scale = checked_scale(self.scale, self.event_ndim)
        times = self._grid_times(scale)
        t = torch.tensor(times, dtype=torch.float64, device=scale.device)
        path = self.interpolant
        alpha, beta, d_beta = path.alpha(t), path.beta(t), path.d_beta(t)
        column = (-1,) + (1,) * scale.ndim
        s = ((alpha / beta) ** 2).reshape(column)
        p = scale**-2.0
        # The last step ends at s = inf, where the weight of the data prediction is 1.
        weight = torch.cat([(s[1:] - s[:-1]) / (p + s[1:]), torch.ones_like(p + s[:1])])
        wronskian = path.wronskian(t).reshape(column)
        alpha, beta, d_beta = alpha.reshape(column), beta.reshape(column), d_beta.reshape(column)
        # x = input_scale * W; the first state is x_0 itself, and W = 0 there.
        input_scale = torch.cat([torch.ones_like(p + s[:1]), ((p + s) * beta**2)[1:] / alpha[1:]])
        carried = torch.cat([torch.zeros_like(weight[:1]), 1.0 - weight[1:]])
        stds = _per_step(torch.sqrt(weight / (p + s)))
        coefficients = StepCoefficients(
            times=times,
            adjoint_times=times,
            input_scales=(1.0, *_per_step(input_scale)[1:]),
            decays=_per_step(carried - weight * d_beta * input_scale / wronskian),
            gains=_per_step(weight * beta / wronskian),
            stds=stds,
            noise_stds=stds,
        )
        object.__setattr__(self, "coefficients", coefficients)

    def _grid_times(self, scale: Tensor) -> tuple[float, ...]:
        if self.grid == "time":
            return tuple(k / self.steps for k in range(self.steps))
        if self.grid == "clock":
            mean_scale = float(torch.exp(torch.log(scale).mean()))
            # u = scale^2 c gives s = p c/(1 - c) and so r = sqrt(c/(1 - c))/scale.
            fractions = (k / self.steps for k in range(self.steps))
            ratios = [math.sqrt(c / (1.0 - c)) / mean_scale for c in fractions]
            return tuple(self.interpolant.time_of_ratio(ratio) for ratio in ratios)
        if isinstance(self.grid, str):
            raise ValueError(f"grid must be 'time', 'clock' or a grid of times, got {self.grid!r}")
        return whole_grid(self.grid)[:-1]


def checked_scale(scale: float | Sequence[float] | Tensor, event_ndim: int) -> Tensor:
    """The scale of the data as a float64 tensor.

    Raises:
        ValueError: If it is not positive and finite, or has more axes than the event.
    """
    if isinstance(scale, Tensor):
        values = scale.detach().to(torch.float64)
    else:
        try:
            values = torch.as_tensor(scale, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"scale must be a number or a tensor of numbers, got {scale!r}"
            ) from error
    if values.numel() == 0:
        raise ValueError(f"scale is empty, of shape {tuple(values.shape)}")
    if values.ndim > event_ndim:
        raise ValueError(
            f"scale has shape {tuple(values.shape)}; expected one number or a shape that "
            f"broadcasts to the event shape of {event_ndim} axes"
        )
    if not bool(torch.all(torch.isfinite(values) & (values > 0.0))):
        raise ValueError(
            f"scale must be positive and finite, got values from {float(values.min())} to "
            f"{float(values.max())}: use the standard deviation of the data, with a floor where a "
            "dimension is constant"
        )
    return values


def _per_step(values: Tensor) -> Coefficients:
    """Python floats where the scale is one number, else one tensor of its shape per step."""
    return tuple(values.tolist()) if values.ndim == 1 else values.unbind(0)
