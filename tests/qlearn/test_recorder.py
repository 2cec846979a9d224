"""A field's evaluations along a path, remembered for a gradient, and the CPU's rounded products."""

import copy

import pytest
import torch
from torch import Tensor

from qlearn import MLP, CriticEnsemble, FlowActor, Learner, RandomStreams
from qlearn._arithmetic import onednn_suits

needs_onednn = pytest.mark.skipif(
    not onednn_suits(torch.zeros(1)), reason="this torch build has no oneDNN for the CPU"
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def gradients(actor: FlowActor, velocities: Tensor) -> list[Tensor]:
    loss = (velocities * torch.linspace(-1.0, 1.0, velocities.shape[-1])).square().sum()
    return list(torch.autograd.grad(loss, list(actor.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recorded", [0, 3, 4])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_recorded_path_has_the_values_and_gradients_of_one_batch(
    replicas: int, recorded: int, dtype: torch.dtype
) -> None:
    streams = RandomStreams(range(replicas))
    actor = FlowActor(replicas, 3, 2, (7, 6), layer_norm=True, streams=streams).to(dtype)
    observations = streams.normal(5, 3).to(dtype)
    x, t = torch.randn(4, replicas, 5, 2, dtype=dtype), torch.rand(4, replicas, 5, dtype=dtype)
    field = actor.field(observations)
    expected = field(x, t)
    recorder = field.record()
    for k in range(recorded):
        with torch.no_grad():
            torch.testing.assert_close(recorder(x[k], t[k]), expected[k].detach())
    found = recorder.along(x, t)
    torch.testing.assert_close(found, expected)
    pairs = zip(gradients(actor, found), gradients(actor, expected), strict=True)
    for mine, theirs in pairs:
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-5)


@needs_onednn
def test_parameters_changed_after_a_recording_are_noticed() -> None:
    streams = RandomStreams([0])
    actor = FlowActor(1, 3, 2, (4,), layer_norm=False, streams=streams)
    field = actor.field(streams.normal(5, 3))
    recorder = field.record()
    recorder(torch.zeros(1, 5, 2), torch.zeros(1, 5))
    with torch.no_grad():
        actor.network.kernels[0].add_(1.0)
    with pytest.raises(RuntimeError, match="changed since"):
        recorder.along(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5))


@needs_onednn
def test_views_follow_their_parameters() -> None:
    """The networks that a rollout keeps are those of now: after steps, loads and copies."""
    mlp = MLP(1, 3, (4, 4), 2, layer_norm=False, streams=RandomStreams([0]))
    x = torch.randn(1, 5, 3)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = mlp(x)
        mlp.kernels[1].mul_(2.0)
        assert not torch.equal(mlp(x), before)
        mlp.kernels[1].div_(2.0)
        assert torch.equal(mlp(x), before)
        other = copy.deepcopy(mlp)
        other.kernels[1].zero_()
        assert torch.equal(mlp(x), before)
        assert not torch.equal(other(x), before)
        other.load_state_dict(mlp.state_dict())
        assert torch.equal(other(x), before)
    # A fused optimiser changes parameters without raising their version.
    learner = Learner(mlp.named_parameters(), replicas=mlp.replicas, learning_rate=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learner.step(mlp(x).square().mean((1, 2)))
        with torch.no_grad():
            after = mlp(x)
            assert not torch.equal(after, before)
            assert torch.equal(after, copy.deepcopy(mlp)(x))


@needs_onednn
@pytest.mark.parametrize("layer_norm", [False, True])
def test_rounded_products_are_near_the_exact_ones_and_not_equal(layer_norm: bool) -> None:
    streams = RandomStreams([0])
    critic = CriticEnsemble(1, 2, 6, (64, 64, 64), layer_norm=layer_norm, streams=streams)
    x = streams.normal(32, 6).requires_grad_()
    leaves = [x, *critic.parameters()]

    def run() -> list[Tensor]:
        values = critic(x)
        assert values.dtype == torch.float32
        return [values.detach(), *torch.autograd.grad(values.square().mean(), leaves)]

    exact = run()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = run()
    for mine, theirs in zip(rounded, exact, strict=True):
        assert mine.dtype == torch.float32
        error = float((mine - theirs).norm() / theirs.norm())
        # Numbers of 8 bits are off by up to 2^-9 each, through seven products in a row.
        assert 1e-5 < error < 0.03


@needs_onednn
def test_rounded_rollouts_are_those_of_the_recorded_gradient() -> None:
    streams = RandomStreams([0])
    actor = FlowActor(1, 3, 2, (32, 32), layer_norm=False, streams=streams)
    observations, x, t = streams.normal(8, 3), torch.randn(1, 8, 2), torch.rand(1, 8)
    field = actor.field(observations)
    exact = field(x, t).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        recorder = field.record()
        kept = recorder(x, t)
        along = recorder.along(x[None], t[None])[0]
    assert torch.equal(kept, along.detach())
    assert 0.0 < float((kept - exact).norm() / exact.norm()) < 0.02
