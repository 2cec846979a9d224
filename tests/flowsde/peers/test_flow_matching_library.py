"""Models of Meta's flow_matching: same paths, same ODE samples."""

import pytest
import torch

from flowsde import (
    CosineInterpolant,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    MemorylessEuler,
    ScheduleInterpolant,
    ode_sample,
)

pytest.importorskip("flow_matching", reason="needs the dependency group `peers`")
from flow_matching.path import AffineProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    VPScheduler,
)
from flow_matching.solver import ODESolver


@pytest.mark.parametrize(
    ("scheduler", "interpolant"),
    [
        (CondOTScheduler(), LinearInterpolant()),
        (CosineScheduler(), CosineInterpolant()),
        *(
            (scheduler, ScheduleInterpolant(scheduler))
            for scheduler in (VPScheduler(), LinearVPScheduler(), PolynomialConvexScheduler(2))
        ),
    ],
)
def test_paths_and_targets_agree(scheduler, interpolant: Interpolant, noise) -> None:
    data = torch.randn_like(noise)
    t = torch.linspace(0.01, 0.99, len(noise), dtype=torch.float64)
    theirs = AffineProbPath(scheduler).sample(x_0=noise, x_1=data, t=t)
    torch.testing.assert_close(interpolant.interpolate(noise, data, t), theirs.x_t)
    torch.testing.assert_close(interpolant.velocity(noise, data, t), theirs.dx_t)


@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_ode_solver_gives_the_same_samples(network, noise, method: str) -> None:
    theirs = ODESolver(network).sample(x_init=noise, step_size=0.05, method=method)
    ours = ode_sample(network, noise, 20, method)  # type: ignore[arg-type]
    assert (ours - noise).abs().mean() > 0.05
    # Their grid of times is float32.
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheduler", [VPScheduler(), LinearVPScheduler()])
def test_kernels_follow_a_scheduler(scheduler, gaussian, chain_law) -> None:
    exact = gaussian(0.7, 0.5, ScheduleInterpolant(scheduler))
    for kernel in (
        FollmerKernel(200, interpolant=exact.interpolant, scale=0.5),
        MemorylessEuler(2000, interpolant=exact.interpolant),
    ):
        law = chain_law(kernel, exact.velocity)
        assert abs(law.means[-1] - 0.7) < 0.02
        assert abs(law.stds[-1] - 0.5) < 0.02
