"""The memoryless SDE by a stochastic two-step Adams-Bashforth method in the log signal ratio."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import along_path
from flowsde._follmer import checked_scale
from flowsde._interpolant import LINEAR, Interpolant
from flowsde._kernel import Coefficients, StepCoefficients, TransitionKernel, check_fit
from flowsde._time_grid import TimeGrid, whole_grid


@dataclass(frozen=True, eq=False)
class AdamsBashforthKernel(TransitionKernel):
    """Second-order steps with one network evaluation each, for a whole range of data scales.

    In `s = (alpha/beta)^2` and `Y = s x_1 + sqrt(s) x_0` the memoryless SDE of any interpolant is
    `dY = x1hat ds + dB_s`, Y = 0 at s = 0, and the sample is the limit of x1hat. The data
    prediction x1hat is a martingale along it, so its frozen value gives the mean of a step
    exactly; what a first-order step lacks is the spread that x1hat itself gains during the step.
    Here that comes from the change of x1hat over the step before,

        Y' = Y + ds [x1hat_k + b (x1hat_k - x1hat_{k-1})] + sqrt(kappa ds) eps,

    on a grid with s geometric, `s' = exp(D) s`. There the variance of the sample is a trapezoidal
    sum in log s over a peak of fixed shape at 1/std^2, which is accurate to rounding wherever that
    peak lies inside the grid: `b = 3/(6 + 2 D)` and a kappa near `1 + D^2/12` that makes the
    variance right for one Gaussian make it right for all. D vanishes as K grows, b -> 1/2 and
    kappa -> 1.

    States are the network's arguments x. The transition is Gaussian given the two states before
    it. `path_kl` and `matching_loss` do not use its mean and noise but the integrals over s that
    they stand for, by the trapezoidal rule in log s (`gains`, `stds`): the path KL of the SDE to
    second order, where a one-step kernel gives that of the chain. `control_adjoints` interpolates
    the adjoint of the chain, which belongs to the noise of an interval, to the times of the
    controls.

    Source: the two-step Adams-Bashforth methods of Buckwar & Winkler for small noise (SIAM J.
    Numer. Anal. 44, 2006) and stochastic localisation (Montanari, arXiv 2305.10690); the
    calibration is derived in docs/flowsde.md.

    Attributes:
        steps: Number of steps K >= 3, one network evaluation each.
        event_ndim: Number of trailing axes that make up one sample.
        control_offset: Not used; see `control_adjoints`.
        interpolant: The schedule the velocity was trained with.
        scale: Standard deviation of the data, one number or one per dimension.
        spread: The grid resolves structure between `min(scale)/spread` and `max(scale)`: for a
            policy, how much narrower its law can be than the whole of the data.
        grid: Times of the steps from noise to data instead, or a scheduler's sigmas; see
            `time_grid`. `scale` and `spread` then choose nothing, and what is resolved is data
            between 1/r_{K-1} and 1/r_1 with r = alpha/beta at the second and the last time. Errors
            are of second order where the lengths of steps in log r vary smoothly.

    Raises:
        ValueError: For fewer than 3 steps, a scale that is not positive or whose narrowest
            structure is too small for any time before 1, or a spread below 1.
    """

    interpolant: Interpolant = LINEAR
    scale: float | Sequence[float] | Tensor = 1.0
    spread: float = 10.0
    grid: TimeGrid | None = None
    _control: "_Control" = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check(self.interpolant, self.grid)
        if self.steps < 3:
            raise ValueError(f"a two-step method needs at least 3 steps, got {self.steps}")
        scale = checked_scale(self.scale, self.event_ndim)
        if not 1.0 <= self.spread < math.inf:
            raise ValueError(f"spread must be at least 1 and finite, got {self.spread}")
        s, times, ratios, first_share = self._points(scale)
        # Weight of the change, and factor of the noise variance, from step 1 to the end.
        factors = {ratio: 3.0 / (6.0 + 2.0 * math.log(ratio)) for ratio in ratios}
        noise = {ratio: _noise_factor(ratio, b) for ratio, b in factors.items()}
        bs, kappas = [factors[ratio] for ratio in ratios], [noise[ratio] for ratio in ratios]
        # Beyond the grid's end the lattice goes on in closed form, with x1hat moving as if the
        # data were wide against 1/sqrt(s): its later changes are a geometric series in rho.
        rho = bs[-1] * (1.0 - 1.0 / ratios[-1])
        rises = [later - now for now, later in pairwise(s)]
        inner = list(zip(bs, kappas, rises[1:], strict=False))
        lag = [0.0, *(b * rise for b, _, rise in inner), rho / (1.0 - rho)]
        variances = [
            # Y_1 gains half of what the widest data add to its variance, s_1^2 scale^2.
            rises[0] * (1.0 + 0.5 * first_share),
            *(kappa * rise for _, kappa, rise in inner),
            kappas[-1] / (ratios[-1] * (1.0 - rho) ** 2 * s[-1]),
        ]

        t = torch.tensor(times, dtype=torch.float64, device="cpu")
        wronskian = self.interpolant.wronskian(t)
        # x1hat = from_velocity v + from_state x, and x = unit Y; the last step ends in the sample.
        from_velocity = (self.interpolant.beta(t) / wronskian).tolist()
        from_state = (-self.interpolant.d_beta(t) / wronskian).tolist()
        unit = (self.interpolant.beta(t[1:]) ** 2 / self.interpolant.alpha(t[1:])).tolist()
        ends = [*unit, 1.0]
        # Y_0 = 0 whatever x_0 is, and the sample is x1hat itself: neither carries the state on.
        carried = [0.0, *(later / now for now, later in pairwise(unit)), 0.0]
        present = [e * (r + c) for e, r, c in zip(ends, [*rises, 1.0], lag, strict=True)]
        past = [-e * c for e, c in zip(ends, lag, strict=True)]
        stds = [e * math.sqrt(v) for e, v in zip(ends, variances, strict=True)]
        coefficients = StepCoefficients(
            times=times,
            adjoint_times=times,
            input_scales=(1.0,) * self.steps,
            decays=tuple(c + p * f for c, p, f in zip(carried, present, from_state, strict=True)),
            gains=tuple(p * f for p, f in zip(present, from_velocity, strict=True)),
            stds=tuple(stds),
            noise_stds=tuple(stds),
            lag_decays=(0.0, *(p * f for p, f in zip(past[1:], from_state[:-1], strict=True))),
            lag_gains=(0.0, *(p * f for p, f in zip(past[1:], from_velocity[:-1], strict=True))),
        )
        # One logarithm where all are equal: nine roundings of it would not be.
        logs = [math.log(later / now) for now, later in pairwise(s[1:])]
        weights = _log_trapezoid(s, logs if self.grid is not None else logs[:1] * len(logs))
        control = _Control(
            gains=tuple(w * f for w, f in zip(weights, from_velocity, strict=True)),
            stds=tuple(math.sqrt(w) for w in weights),
            now=(
                0.0,
                *((1.0 - b) * u for b, u in zip(bs, unit[:-1], strict=False)),
                (1.0 - rho) * unit[-1],
            ),
            after=(unit[0], *(b * u for b, u in zip(bs, unit[1:], strict=False)), 0.0),
        )
        object.__setattr__(self, "coefficients", coefficients)
        object.__setattr__(self, "_control", control)

    def _points(self, scale: Tensor) -> tuple[list[float], tuple[float, ...], list[float], float]:
        """Points s and their times, ratios of the steps from s_1 on, and `s_1 max(scale)^2`."""
        if self.grid is None:
            s, ratio = _grid(self.steps, float(scale.min()) / self.spread, float(scale.max()))
            times = (0.0, *(self.interpolant.time_of_ratio(math.sqrt(value)) for value in s[1:]))
            if times[-1] > 1.0 - 1e-12:
                raise ValueError(
                    f"scale {self.scale} with spread {self.spread} is below what float64 times "
                    "resolve: rescale the data to a standard deviation near 1"
                )
            return s, times, [ratio] * (self.steps - 1), 1.0 / self.steps
        times = whole_grid(self.grid)[:-1]
        t = torch.tensor(times, dtype=torch.float64, device="cpu")
        s = ((self.interpolant.alpha(t) / self.interpolant.beta(t)) ** 2).tolist()
        ratios = [later / now for now, later in pairwise(s[1:])]
        # Beyond the grid it goes on with the ratio of its last step.
        return s, times, [*ratios, ratios[-1]], min(s[1] * float(scale.max()) ** 2, 1.0)

    def start(self, noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """First state of the chain; see `TransitionKernel.start`.

        Raises:
            ValueError: If also the scale, of which only the extremes are used, does not fit.
        """
        if not isinstance(self.scale, float | int):
            check_fit(torch.as_tensor(self.scale), noise)
        return super().start(noise)

    @property
    def gains(self) -> Coefficients:
        """Quadrature weights of `int ds` times `d x1hat / d v`, K of them."""
        return self._control.gains

    @property
    def stds(self) -> Coefficients:
        """Square roots of the quadrature weights of `int ds`, K of them."""
        return self._control.stds

    def control_adjoints(self, adjoints: Float[Tensor, "points *shape"]) -> Tensor:
        """Adjoints of Y at the times of the controls, (K, *batch, *event).

        The chain's a_k is the mean of the adjoint over the noise that arrives in state k, so it
        belongs to an interval; at s_k it is `(1 - b) a_k + b a_{k+1}` in units of Y. Both limits
        of a Gaussian, s far below and far above 1/std^2, come out exactly.
        """
        now, after = along_path(self._control.now, adjoints[1:]), self._control.after
        return now * adjoints[:-1] + along_path(after, adjoints[1:]) * adjoints[1:]


@dataclass(frozen=True, slots=True)
class _Control:
    """What path KL and matching loss use in place of the chain's own coefficients."""

    gains: tuple[float, ...]
    stds: tuple[float, ...]
    now: tuple[float, ...]
    after: tuple[float, ...]


def _grid(steps: int, narrow: float, wide: float) -> tuple[list[float], float]:
    """Values of s, 0 and then K-1 geometric ones, and their ratio.

    They exceed [1/wide^2, 1/narrow^2] by a factor K on either side: the ends err by the square of
    its inverse, so they converge as fast as the steps inside.
    """
    first = 1.0 / (wide**2 * steps)
    ratio = (wide / narrow * steps) ** (2.0 / (steps - 2))
    return [0.0, *(first * ratio**k for k in range(steps - 1))], ratio


def _noise_factor(ratio: float, b: float) -> float:
    """The kappa at which the sample of Gaussian data has the right variance.

    For unit data, noise arriving at s changes the sample by R(s), with
    `R(s) = [1 + b (ratio - 1) s R(ratio s)]/(1 + s)`, and the variance is the sum over the grid of
    `kappa (1 - 1/ratio) s R(s)^2`, an integral over log s up to exp(-20/log ratio).
    """
    phases, total = 4, 0.0
    for phase in range(phases):
        s = math.exp(30.0) * ratio ** (phase / phases)
        response = 1.0 / ((1.0 - b * (1.0 - 1.0 / ratio)) * s)
        while s > math.exp(-30.0):
            total += s * response**2
            s /= ratio
            response = (1.0 + b * (ratio - 1.0) * s * response) / (1.0 + s)
    return phases / (total * (1.0 - 1.0 / ratio))


def _log_trapezoid(s: list[float], h: list[float]) -> list[float]:
    """Weights of `int_0^inf ds`: trapezoidal in log s; below s_1 linear, beyond the end as s^-2.

    Args:
        s: Points, 0 first.
        h: Differences of their logarithms, without that of 0.
    """
    # Twice the trapezoid's own, so that half of it where steps are equal is theirs to the bit.
    both = [h[0], *(now + later for now, later in pairwise(h)), h[-1]]
    weights = [0.0, *(0.5 * width * value for width, value in zip(both, s[1:], strict=True))]
    weights[0] += 0.5 * s[1]
    weights[1] += 0.5 * s[1]
    weights[-1] += s[-1]
    return weights
