import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    Interpolant,
    LinearInterpolant,
    sample_path,
    step_log_prob,
    velocities_along,
)


@dataclass(frozen=True)
class SphericalInterpolant(Interpolant):
    """`alpha = t`, `beta = sqrt(1 - t^2)`: a third schedule, whose Wronskian is not constant."""

    def alpha(self, t: Tensor) -> Tensor:
        return t

    def beta(self, t: Tensor) -> Tensor:
        return (1.0 - t.square()).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def d_beta(self, t: Tensor) -> Tensor:
        return -t / (1.0 - t.square()).sqrt()


INTERPOLANTS = [LinearInterpolant(), CosineInterpolant(), SphericalInterpolant()]
# Structure that the default kernel resolves: scale 1, spread 10.
SCALES = [0.1, 0.15, 0.22, 0.32, 0.46, 0.68, 1.0]
# Tilts of N(0, std^2): a shift by one std, and a reward that also sharpens the law.
TILTS = {"shift": (1.0, 1.0), "sharpen": (0.7, 0.5**0.5)}


def gaussian_kl(mean: float, std: float) -> float:
    """KL(N(mean, std^2) || N(0, 1))."""
    return 0.5 * (std**2 + mean**2 - 1.0) - math.log(std)


def errors(steps, std, tilt, gaussian, affine_chain, path=LinearInterpolant()):  # noqa: B008
    """Relative errors of shift, spread and KL of the tilted law, data N(0.7 std, std^2)."""
    shift, narrowing = TILTS[tilt]
    base = gaussian(0.7 * std, std, path)
    fine = gaussian((0.7 + shift) * std, narrowing * std, path)
    chain = affine_chain(AdamsBashforthKernel(steps, interpolant=path), fine.velocity)
    mean, spread = chain.end
    kl = chain.path_kl(fine.velocity, base.velocity) / gaussian_kl(shift, narrowing)
    return (mean / std - 0.7) / shift - 1.0, spread / fine.std - 1.0, kl - 1.0


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("tilt", TILTS)
def test_ten_evaluations_are_within_three_percent_over_a_tenfold_range_of_scales(
    path, tilt, gaussian, affine_chain
) -> None:
    # Both laws within the range: the sharpened one is narrower than the data.
    scales = [std for std in SCALES if TILTS[tilt][1] * std >= 0.1]
    found = [
        [abs(e) for e in errors(10, std, tilt, gaussian, affine_chain, path)] for std in scales
    ]
    shift, spread, kl = (max(column) for column in zip(*found, strict=True))
    assert shift < 1e-9
    assert 1e-3 < spread < 0.015
    assert 1e-3 < kl < 0.03


def test_the_one_step_kernel_is_far_from_that(gaussian, affine_chain) -> None:
    """What the second order buys, at the same ten evaluations."""
    data = gaussian(0.07, 0.1)
    one = affine_chain(FollmerKernel(10), data.velocity).end[1] / 0.1 - 1.0
    assert 0.5 < one < 0.65


@pytest.mark.parametrize("tilt", TILTS)
def test_second_order_in_spread_and_kl(tilt, gaussian, affine_chain) -> None:
    steps = (16, 32, 64, 128)
    worst = []
    for count in steps:
        found = [errors(count, std, tilt, gaussian, affine_chain) for std in SCALES]
        worst.append([max(abs(e[i]) for e in found) for i in (1, 2)])
    for column in zip(*worst, strict=True):
        slopes = [math.log2(a / b) for a, b in itertools.pairwise(column)]
        # The grid widens with K, so its step shrinks like log(K)/K: a little under 2 for a while.
        assert all(1.5 < slope < 2.6 for slope in slopes), slopes
        assert 1.65 < sum(slopes) / len(slopes) < 2.4


def test_marginals_along_the_way_converge_at_second_order(gaussian, affine_chain) -> None:
    data, worst = gaussian(0.3, 0.3), []
    for steps in (20, 40, 80):
        kernel = AdamsBashforthKernel(steps)
        chain = affine_chain(kernel, data.velocity)
        t = torch.tensor(kernel.times[1:], dtype=torch.float64)
        states = chain.path.states[1:-1]
        torch.testing.assert_close(chain.mean(states), 0.3 * t, rtol=0.0, atol=1e-9)
        ratio = chain.variance(states).sqrt() / data.marginal_variance(t).sqrt()
        # The first state errs by its distance to the grid's end, of first order but of no weight.
        worst.append(float((ratio - 1.0)[t > 0.2].abs().max()))
    slopes = [math.log2(a / b) for a, b in itertools.pairwise(worst)]
    assert worst[0] < 0.02
    assert all(1.3 < slope < 2.5 for slope in slopes), (worst, slopes)


@given(scale=st.floats(0.02, 50.0), std=st.floats(0.1, 1.0), mean=st.floats(-3.0, 3.0))
@settings(max_examples=25, deadline=None)
def test_it_depends_on_the_ratio_to_the_scale_alone(
    scale, std, mean, gaussian, affine_chain
) -> None:
    here = affine_chain(AdamsBashforthKernel(8), gaussian(mean, std).velocity)
    there = affine_chain(
        AdamsBashforthKernel(8, scale=scale), gaussian(scale * mean, scale * std).velocity
    )
    assert there.end[0] == pytest.approx(scale * here.end[0], rel=1e-6, abs=1e-7 * scale)
    assert there.end[1] == pytest.approx(scale * here.end[1], rel=1e-6)


@pytest.mark.parametrize("path", INTERPOLANTS)
def test_every_interpolant_gives_the_same_law(path, gaussian, affine_chain) -> None:
    """In the coordinate Y the process knows nothing of the schedule."""
    laws = [
        affine_chain(AdamsBashforthKernel(7, interpolant=p), gaussian(0.4, 0.3, p).velocity)
        for p in (LinearInterpolant(), path)
    ]
    assert laws[1].end == pytest.approx(laws[0].end, rel=1e-8)
    assert abs(laws[1].memory) < 1e-12


def test_grid_is_geometric_in_the_signal_ratio_and_wide_enough() -> None:
    kernel = AdamsBashforthKernel(10, scale=torch.tensor([0.5, 2.0]), spread=4.0)
    s = [(t / (1.0 - t)) ** 2 for t in kernel.times]
    assert s[0] == 0.0
    ratios = [b / a for a, b in itertools.pairwise(s[1:])]
    assert ratios == pytest.approx([ratios[0]] * 8, rel=1e-9)
    assert s[1] == pytest.approx(1.0 / (10.0 * 2.0**2))
    assert s[-1] == pytest.approx(10.0 / (0.5 / 4.0) ** 2)


def test_quadrature_weights_integrate_the_peak_of_any_scale() -> None:
    """`int ds/(P + s)^2 = 1/P`, the path KL of a shift, at many positions in the grid."""
    kernel = AdamsBashforthKernel(12)
    s = torch.tensor([(t / (1.0 - t)) ** 2 for t in kernel.times], dtype=torch.float64)
    weights = torch.tensor(kernel.stds, dtype=torch.float64).square()
    for std in SCALES:
        peak = 1.0 / (std**-2 + s).square()
        assert float((weights * peak).sum()) / std**2 == pytest.approx(1.0, abs=0.012)
    assert all(weight > 0.0 for weight in weights)


def test_log_density_of_a_path_is_that_of_its_noise(gaussian, generator) -> None:
    kernel, field = AdamsBashforthKernel(6), gaussian(0.2, 0.5).velocity
    noise = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    eps = torch.randn(6, 5, 3, dtype=torch.float64, generator=generator)
    path = sample_path(kernel, field, noise, eps)
    log_prob = step_log_prob(kernel, path, velocities_along(kernel, field, path))
    stds = torch.tensor(kernel.noise_stds, dtype=torch.float64)[:, None, None]
    expected = -0.5 * eps.square() - torch.log(stds) - 0.5 * math.log(2.0 * math.pi)
    torch.testing.assert_close(log_prob, expected.sum(-1))


def test_a_later_step_needs_the_one_before() -> None:
    kernel, state = AdamsBashforthKernel(4), torch.zeros(2, 1)
    kernel.mean(state, state, 0)
    with pytest.raises(ValueError, match="step 2 of a two-step kernel needs the state and vel"):
        kernel.mean(state, state, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2}, "at least 3 steps, got 2"),
        ({"steps": 0}, "steps must be an integer of at least 1"),
        ({"scale": -1.0}, "scale must be positive and finite"),
        ({"spread": 0.5}, "spread must be at least 1 and finite, got 0.5"),
        ({"spread": float("nan")}, "spread must be at least 1 and finite"),
        ({"scale": torch.ones(2, 2)}, r"scale has shape \(2, 2\)"),
    ],
)
def test_bad_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AdamsBashforthKernel(**{"steps": 5, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(("std", "after"), [(1.0, 0.7), (1.0, 0.5), (0.3, 0.2)])
def test_a_change_of_width_converges_more_slowly_in_kl(
    std: float, after: float, gaussian, affine_chain
) -> None:
    """The figures of docs/flowsde.md: at ten steps the order is near 1 and rises to 1.7."""
    base, fine = gaussian(0.0, std).velocity, gaussian(0.0, after).velocity
    exact = 0.5 * ((after / std) ** 2 - 1.0) - math.log(after / std)
    errors = []
    for steps in (10, 20, 40, 80):
        chain = affine_chain(AdamsBashforthKernel(steps), fine)
        errors.append(1.0 - chain.path_kl(fine, base) / exact)
        assert abs(chain.end[1] / after - 1.0) < 0.005
    assert 0.025 < errors[0] < 0.046
    assert 0.013 < errors[1] < 0.019
    orders = [math.log2(one / half) for one, half in itertools.pairwise(errors)]
    assert 0.9 < orders[0] < 1.4
    assert orders == sorted(orders)
    assert 1.6 < orders[2] < 1.8
