"""How accurate the transition kernels are, on laws whose velocity and tilt are known.

Base laws: a Gaussian and three mixtures of Gaussians, each scaled to a standard deviation of 0.1,
0.32 and 1, tilted by exp(x/std). Every kernel is driven by the exact velocity of the tilted law and
is told nothing but the scale it is built for: 0.32, the middle, for the Brownian kernel, which is
exact there for a Gaussian; 1 with a spread of 10 for the Adams-Bashforth one.

    uv run python examples/kernel_accuracy.py      # about a minute on one core, the same every time

prints the largest relative error over the scales of: the shift of the mean, the standard deviation,
the path KL (exact: the KL of the two laws), and the control that adjoint matching is regressed on
(its projection on the optimal control, along the optimal paths).
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjoint import lean_adjoint
from flowsde import (
    AdamsBashforthKernel,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    MemorylessEuler,
    TransitionKernel,
    along_path,
    sample_path,
    velocities_along,
)
from trustregion import path_kl

LINEAR = LinearInterpolant()
SCALES = (0.1, 10**-0.5, 1.0)


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of Gaussians on the line and the exact velocity of its flow.

    Attributes:
        weights: Of the components, sum 1.
        means: Of the components.
        stds: Of the components.
        interpolant: Schedule of the flow.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor
    interpolant: Interpolant = LINEAR

    @classmethod
    def of(
        cls,
        weights: Sequence[float],
        means: Sequence[float],
        stds: Sequence[float],
        *,
        std: float,
        interpolant: Interpolant = LINEAR,
    ) -> "Mixture":
        """Mixture of the given shape, scaled to standard deviation `std`."""
        w, m, s = (torch.tensor(values).double() for values in (weights, means, stds))
        shape = cls(w, m, s)
        factor = std / shape.std
        return cls(shape.weights, factor * shape.means, factor * shape.stds, interpolant)

    @property
    def mean(self) -> float:
        """Of the mixture."""
        return float(self.weights @ self.means)

    @property
    def std(self) -> float:
        """Of the mixture."""
        second = float(self.weights @ (self.means.square() + self.stds.square()))
        return math.sqrt(second - self.mean**2)

    def _log_factors(self, slope: float) -> Tensor:
        return self.weights.log() + slope * self.means + 0.5 * (slope * self.stds).square()

    def tilted(self, slope: float) -> "Mixture":
        """The law times `exp(slope x)`, normalised."""
        weights = torch.softmax(self._log_factors(slope), 0)
        return Mixture(
            weights, self.means + slope * self.stds.square(), self.stds, self.interpolant
        )

    def tilt_kl(self, slope: float) -> float:
        """KL of the tilted law from this one."""
        log_partition = float(torch.logsumexp(self._log_factors(slope), 0))
        return slope * self.tilted(slope).mean - log_partition

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """`E[alpha' x_1 + beta' x_0 | x_t = x]`; x (*batch, 1), t (*batch)."""
        path, t = self.interpolant, t.unsqueeze(-1)
        alpha, beta = path.alpha(t), path.beta(t)
        variance = (alpha * self.stds).square() + beta.square()
        centred = x - alpha * self.means
        log_share = self.weights.log() - 0.5 * variance.log() - 0.5 * centred.square() / variance
        slope = (alpha * path.d_alpha(t) * self.stds.square() + beta * path.d_beta(t)) / variance
        each = path.d_alpha(t) * self.means + slope * centred
        return (torch.softmax(log_share, -1) * each).sum(-1, keepdim=True)


SHAPES: dict[str, tuple[Sequence[float], Sequence[float], Sequence[float]]] = {
    "Gaussian": ((1.0,), (0.0,), (1.0,)),
    "two modes": ((0.3, 0.7), (-1.0, 1.0), (0.4, 0.4)),
    "two widths": ((0.5, 0.5), (0.0, 0.0), (0.2, 1.4)),
    "skewed": ((0.8, 0.2), (0.0, 2.0), (0.3, 0.8)),
}

KERNELS: dict[str, Callable[[int, Interpolant], TransitionKernel]] = {
    "MemorylessEuler": lambda steps, path: MemorylessEuler(steps, interpolant=path),
    "FollmerKernel": lambda steps, path: FollmerKernel(steps, scale=10**-0.5, interpolant=path),
    "AdamsBashforthKernel": lambda steps, path: AdamsBashforthKernel(steps, interpolant=path),
}


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors; 0 is exact."""

    shift: float
    spread: float
    kl: float
    control: float


@torch.no_grad()
def measure(kernel: TransitionKernel, base: Mixture, samples: int) -> Errors:
    """Errors of a kernel for `base` tilted by `exp(x/std)`, from antithetic paths."""
    slope = 1.0 / base.std
    fine = base.tilted(slope)
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(kernel.steps + 1, samples // 2, 1, generator=generator).double()
    noise = torch.cat([half, -half], 1)
    path = sample_path(kernel, fine.velocity, noise[0], noise[1:], final_velocity=base.velocity)
    dv = velocities_along(kernel, fine.velocity, path) - velocities_along(
        kernel, base.velocity, path
    )
    kl = float(path_kl(kernel, dv, torch.zeros_like(dv)).mean())
    adjoints = lean_adjoint(kernel, base.velocity, path, torch.full_like(path.sample, -slope))
    # The control that the regression aims for at each point, against the optimal one, dv.
    gains, stds = along_path(kernel.gains, dv), along_path(kernel.stds, dv)
    aim = -(stds.square() / gains) * kernel.control_adjoints(adjoints)
    weight = (gains / stds).square()
    control = float((weight * dv * aim).sum() / (weight * dv.square()).sum())
    return Errors(
        shift=(float(path.sample.mean()) - base.mean) / (fine.mean - base.mean) - 1.0,
        spread=float(path.sample.std()) / fine.std - 1.0,
        kl=kl / base.tilt_kl(slope) - 1.0,
        control=control - 1.0,
    )


def worst(
    kernel: str, steps: int, shape: str, samples: int, interpolant: Interpolant = LINEAR
) -> list[float]:
    """Largest absolute errors over the scales: shift, spread, KL, control."""
    found = [
        measure(
            KERNELS[kernel](steps, interpolant),
            Mixture.of(*SHAPES[shape], std=std, interpolant=interpolant),
            samples,
        )
        for std in SCALES
    ]
    return [
        max(abs(getattr(errors, name)) for errors in found)
        for name in ("shift", "spread", "kl", "control")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000, help="paths per law")
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| kernel | evaluations | law | shift | std | path KL | control |")
    print("|---|---|---|---|---|---|---|")
    for kernel in KERNELS:
        for steps in arguments.steps:
            for shape in SHAPES:
                cells = " | ".join(
                    f"{error:.1%}".replace("%", " %")
                    for error in worst(kernel, steps, shape, arguments.samples)
                )
                print(f"| `{kernel}` | {steps} | {shape} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
