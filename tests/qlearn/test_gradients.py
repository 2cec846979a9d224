import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from qlearn import MLP, GradientGuard, RandomStreams, clip_gradients

SHAPES = [(3, 4, 5), (3,), (3, 2), (3, 2, 2, 2)]


def gradients(scale: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    factor = scale * torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64)
        * factor.reshape(-1, *(1 for _ in shape[1:]))
        for shape in SHAPES
    ]


def norm_of(tensors: list[Tensor], replica: int) -> float:
    return math.sqrt(sum(float(t[replica].square().sum()) for t in tensors))


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_each_replica_is_clipped_to_its_own_norm(scale: float, max_norm: float) -> None:
    raw = gradients(scale)
    report = GradientGuard(raw, max_norm, replicas=3)(raw)
    for r in range(3):
        norm = norm_of(raw, r)
        assert float(report.norm[r]) == pytest.approx(norm, rel=1e-9)
        coefficient = min(1.0, max_norm / norm)
        assert float(report.coefficient[r]) == pytest.approx(coefficient, rel=1e-9)
        assert norm_of(list(report.gradients), r) == pytest.approx(min(norm, max_norm), rel=1e-9)
    assert report.finite.all()
    assert (report.first_bad == -1).all()


def test_in_place_agrees_with_torch_on_one_replica() -> None:
    network = MLP(1, 3, (8,), 2, layer_norm=True, streams=RandomStreams([0]))
    network(10 * torch.randn(1, 16, 3)).square().mean().backward()
    other = copy.deepcopy(network)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        theirs.grad = mine.grad.clone()
    report = clip_gradients(network.parameters(), 0.1, replicas=1)
    total = torch.nn.utils.clip_grad_norm_(other.parameters(), 0.1)
    torch.testing.assert_close(report.norm[0], total)
    assert total > 0.2
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=2e-5, atol=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("max_norm", [1.0, None])
def test_a_broken_replica_is_zeroed_and_the_others_are_untouched(
    value: float, max_norm: float | None
) -> None:
    raw, broken = gradients(), gradients()
    broken[2][1, 0] = value
    broken[3][1, 0, 0, 0] = value
    expected = GradientGuard(raw, max_norm, replicas=3)(raw)
    report = GradientGuard(raw, max_norm, replicas=3)(broken)
    assert report.finite.tolist() == [True, False, True]
    assert report.first_bad.tolist() == [-1, 2, -1]
    for mine, theirs in zip(report.gradients, expected.gradients, strict=True):
        assert torch.equal(mine[[0, 2]], theirs[[0, 2]])
        assert mine[1].abs().max() == 0.0
    for parameter, gradient in zip(holders := gradients(), broken, strict=True):
        parameter.grad = gradient
    clip_gradients(holders, max_norm, replicas=3)
    for holder, gradient in zip(holders, report.gradients, strict=True):
        assert torch.equal(holder.grad, gradient)


def test_failure_is_remembered_until_reset() -> None:
    good, bad = gradients(), gradients()
    bad[1][2] = math.nan
    guard = GradientGuard(good, 1.0, replicas=3)
    assert not guard.failed.any()
    guard(bad)
    later = gradients()
    later[0][2, 0, 0] = math.inf
    guard(later)
    report = guard(good)
    assert guard.failed.tolist() == [False, False, True]
    assert guard.first_bad.tolist() == [-1, -1, 1]
    assert report.finite.all()
    assert report.gradients[0][2].abs().max() == 0.0
    restored = GradientGuard(good, 1.0, replicas=3)
    restored.load_state_dict(guard.state_dict())
    assert restored(good).coefficient[2] == 0.0
    guard.reset()
    assert guard(good).gradients[0][2].abs().max() > 0.0


def test_gradients_that_share_memory_are_scaled_once() -> None:
    shared = torch.full((2, 3), 4.0)
    report = GradientGuard([shared, shared], 1.0, replicas=2)([shared, shared])
    assert norm_of(list(report.gradients), 0) == pytest.approx(1.0, rel=1e-6)
    assert torch.equal(shared, torch.full((2, 3), 4.0))


def test_zero_gradients_stay_zero() -> None:
    zeros = [torch.zeros(2, 3)]
    report = GradientGuard(zeros, 1.0, replicas=2)(zeros)
    assert report.coefficient.tolist() == [1.0, 1.0]
    assert report.finite.all()
    assert report.gradients[0].abs().max() == 0.0


def test_large_float32_norm_is_accurate() -> None:
    big = torch.full((1, 3000, 1000), 0.01)
    assert float(GradientGuard([big], None, replicas=1)([big]).norm) == pytest.approx(
        0.01 * math.sqrt(3e6), rel=1e-6
    )


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no gradients"):
        clip_gradients([torch.zeros(2)], 1.0, replicas=2)
    with pytest.raises(ValueError, match="max_norm"):
        GradientGuard([torch.zeros(2)], 0.0, replicas=2)
    with pytest.raises(ValueError, match="tensor 1 has shape"):
        GradientGuard([torch.zeros(2, 3), torch.zeros(3, 2)], 1.0, replicas=2)
    with pytest.raises(ValueError, match="replicas must be at least 1"):
        GradientGuard([torch.zeros(2, 3)], 1.0, replicas=0)


@pytest.mark.parametrize("replicas", [1, 4])
def test_replicas_are_told_and_not_guessed_from_shapes(replicas: int) -> None:
    # Two layers Linear(4, 4): every parameter has a leading axis of 4.
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)).double()
    gradients = [torch.randn_like(p) for p in net.parameters()]
    gradients[2][1, 3] = math.nan
    report = GradientGuard(list(net.parameters()), 1.0, replicas=replicas)(gradients)
    assert report.finite.tolist() == [r != 1 and replicas == 4 for r in range(replicas)]
    whole = [g.nan_to_num() for g in gradients]
    report = GradientGuard(whole, 1.0, replicas=1)(whole)
    norm = torch.cat([g.flatten() for g in whole]).norm()
    torch.testing.assert_close(report.norm[0], norm)
    for scaled, gradient in zip(report.gradients, whole, strict=True):
        torch.testing.assert_close(scaled, gradient / norm)


def test_one_replica_has_the_same_bits_with_and_without_its_axis() -> None:
    plain = [torch.randn(shape) for shape in [(7, 5), (5,), (), (3, 2, 2)]]
    told = GradientGuard(plain, 0.5, replicas=1)(plain)
    axis = GradientGuard(plain, 0.5, replicas=1)([g[None] for g in plain])
    assert torch.equal(told.norm, axis.norm)
    for one, two in zip(told.gradients, axis.gradients, strict=True):
        assert torch.equal(one, two[0])


def test_norms_of_narrow_gradients_are_float32() -> None:
    mixed = [torch.full((3, 3), 0.01, dtype=torch.bfloat16), torch.ones(2)]
    report = GradientGuard(mixed, 1.0, replicas=1)(mixed)
    assert report.norm.dtype == torch.float32
    assert [g.dtype for g in report.gradients] == [torch.bfloat16, torch.float32]
