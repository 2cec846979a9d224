"""Where the scalar adjoint of SQAM and the lean adjoint of TRQAM lead, on a problem solved exactly.

Data N(0, s^2), reward Q(a) = a. Draws the two controls dv(t) and prints where the flow that follows
each of them ends.

    uv run python examples/scalar_adjoint.py
"""

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from adjoint import LeanAdjoint, ScalarAdjoint
from flowsde import MemorylessEuler, VelocityField, along_path, ode_sample
from trustregion import LinearGaussian

SPREADS = (0.25, 0.5, 1.0)
LAM = 1.0
STEPS = 200


def controls(problem: LinearGaussian) -> dict[str, tuple[Tensor, Tensor]]:
    """Times, and the control that each estimator's regression has as its fixed point."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(8, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(STEPS, 8, 1, generator=generator, dtype=torch.float64)
    found = {}
    for name, estimator in {
        "lean (TRQAM)": LeanAdjoint(MemorylessEuler(STEPS, adjoint_time="consistent")),
        "scalar (SQAM)": ScalarAdjoint(STEPS, ode_steps=STEPS),
    }.items():
        estimate = estimator(
            problem.velocity, problem.velocity, problem.reward, start, noise, lam=LAM
        )
        kernel = estimate.kernel
        adjoints = kernel.control_adjoints(estimate.adjoints)
        gains, stds = along_path(kernel.gains, adjoints), along_path(kernel.stds, adjoints)
        control = (-(stds.square() / gains) * adjoints / LAM).mean((1, 2))
        found[name] = (torch.tensor(kernel.times, dtype=torch.float64), control)
    return found


def shifted(problem: LinearGaussian, times: Tensor, control: Tensor) -> VelocityField:
    """The base velocity plus a control that depends on the time alone."""

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        index = torch.searchsorted(times, t.contiguous()).clamp(max=len(times) - 1)
        return problem.velocity(x, t) + control[index][..., None]

    return velocity


def main() -> None:
    """Draw the figure and print the table."""
    mpl.use("Agg")
    figure = Figure(figsize=(9, 2.8), layout="constrained")
    axes = figure.subplots(1, len(SPREADS))
    noise = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(1)).double()
    print("| spread s of the base | estimator | shift of the mean | shift of the tilted law |")
    print("|---|---|---|---|")
    for axis, spread in zip(axes, SPREADS, strict=True):
        problem = LinearGaussian(std=spread)
        wanted = float(problem.tilted_mean(LAM))
        for name, (times, control) in controls(problem).items():
            axis.plot(times, control, label=name)
            end = ode_sample(shifted(problem, times, control), noise, STEPS).mean()
            moved = float(end - ode_sample(problem.velocity, noise, STEPS).mean())
            print(f"| {spread} | {name} | {moved:.3f} | {wanted:.3f} |")
        t = torch.linspace(0, 1, 200, dtype=torch.float64)
        exact = spread**2 * (1 - t) / problem.marginal_variance(t) / LAM
        axis.plot(t, exact, "k:", label="tilted law")
        axis.set(title=f"s = {spread}", xlabel="t")
    axes[0].set_ylabel("control dv")
    axes[0].legend(fontsize=8)
    target = Path(__file__).parents[1] / "docs/figures/scalar_adjoint.png"
    figure.savefig(target, dpi=120)
    print(f"\nwritten: {target.name}")


if __name__ == "__main__":
    main()
