"""Diffusion policies: the velocity of a noise prediction, cloning, and fine-tuning by TRQAM."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import BC, BCConfig, Problem, TRQAMConfig, draw
from bench.agents.diffusion import FIRST_TIME, DiffusionField, denoising_loss
from bench.agents.networks import flow_actor
from bench.experiment import OfflineRequest
from bench.training.options import plan_offline
from bench.training.pretraining import FlowCache
from flowsde import CosineInterpolant, from_velocity, to_velocity
from qlearn import ChunkBatch, FlowActor, RandomStreams

from .small_agents import PROBLEM, ROWS, build, played, train

COSINE = CosineInterpolant()


@pytest.fixture
def streams() -> RandomStreams:
    return RandomStreams([0, 1])


def network(streams: RandomStreams) -> tuple[FlowActor, Tensor]:
    actor = flow_actor(PROBLEM, (16, 16), streams, layer_norm=True)
    return actor, streams.normal(ROWS, PROBLEM.observation_dim)


@pytest.mark.usefixtures("double")
def test_the_velocity_is_that_of_the_noise_and_data_predictions(streams: RandomStreams) -> None:
    actor, observations = network(streams)
    field, x = DiffusionField(actor.field(observations)), streams.normal(ROWS, PROBLEM.chunk_dim)
    for t in (FIRST_TIME, 0.3, 0.99):
        times = torch.full(x.shape[:-1], t)
        expected = to_velocity("noise", actor(observations, x, times), x, times, COSINE)
        torch.testing.assert_close(field(x, times), expected)
    # Before the first time the data prediction is the one of the first time.
    zero, first = torch.zeros(x.shape[:-1]), torch.full(x.shape[:-1], FIRST_TIME)
    data = from_velocity("data", field(x, first), x, first, COSINE)
    torch.testing.assert_close(from_velocity("data", field(x, zero), x, zero, COSINE), data)
    assert bool(field(x, torch.ones_like(zero)).isfinite().all())


@pytest.mark.usefixtures("double")
def test_linearized_and_recorded_fields_are_the_field(streams: RandomStreams) -> None:
    actor, observations = network(streams)
    field = DiffusionField(actor.field(observations))
    x = streams.normal(3, ROWS, PROBLEM.chunk_dim).movedim(1, 0)
    t = torch.tensor([0.0, 0.4, 1.0])[:, None, None].expand(x.shape[:-1])
    values, pull = field.linearize(x, t)
    torch.testing.assert_close(values, field(x, t).detach())
    cotangent = streams.normal(ROWS, PROBLEM.chunk_dim)
    recorded = field.record()
    for k in range(3):
        point = x[k].clone().requires_grad_()
        (expected,) = torch.autograd.grad(field(point, t[k]), point, cotangent)
        torch.testing.assert_close(pull(cotangent, k), expected)
        torch.testing.assert_close(recorded(x[k], t[k]), values[k])
    along = recorded.along(x, t)
    torch.testing.assert_close(along.detach(), values)
    kernel = actor.network.kernels[0]
    (ours,) = torch.autograd.grad(along.square().sum(), kernel)
    (theirs,) = torch.autograd.grad(field(x, t).square().sum(), kernel)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("double")
def test_denoising_loss_is_the_error_of_the_noise(streams: RandomStreams) -> None:
    actor, observations = network(streams)
    actions, noise = streams.normal(ROWS, 6), streams.normal(ROWS, 6)
    uniform = streams.uniform(ROWS)
    t = (0.05 + 0.95 * uniform)[..., None] * torch.pi / 2
    predicted = actor(observations, t.sin() * actions + t.cos() * noise, t[..., 0] * 2 / torch.pi)
    expected = (predicted - noise).square().sum(-1) / 6
    found = denoising_loss(actor, observations, actions, noise, uniform)
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_a_cloned_diffusion_policy_has_the_laws_of_the_data() -> None:
    # Two modes whose place depends on the observation.
    problem, streams = Problem(1, 1), RandomStreams([0])
    agent = BC(BCConfig((64, 64), learning_rate=2e-3, prediction="noise"), problem, streams)

    def batch(rows: int) -> ChunkBatch:
        state = 2.0 * streams.uniform(rows, 1) - 1.0
        side = torch.where(streams.uniform(rows, 1) < 0.3, -1.0, 1.0)
        actions = 0.2 * state + 0.5 * side + 0.1 * streams.normal(rows, 1)
        ones = torch.ones(1, rows)
        return ChunkBatch(state, actions, ones, ones, ones, state)

    for _ in range(1_500):
        agent.update(batch(256), draw(streams, agent.noise(256)))
    data = batch(4_000)
    actions = agent.act(data.observations, draw(streams, agent.acting_noise(4_000)))
    rest = (actions - 0.2 * data.observations)[0, :, 0]
    assert 0.22 < float((rest < 0).float().mean()) < 0.38
    for mode, side in ((rest[rest < 0], -0.5), (rest[rest > 0], 0.5)):
        assert float(mode.mean()) == pytest.approx(side, abs=0.06)
        assert 0.06 < float(mode.std()) < 0.2


@pytest.mark.parametrize("kernel", ["memoryless_euler", "follmer", "adams_bashforth"])
def test_trqam_fine_tunes_a_diffusion_policy(kernel: str) -> None:
    settings: dict[str, Any] = {"prediction": "noise", "kernel": kernel}
    agent, alone = build("trqam", [0, 1], **settings), build("trqam", [1], **settings)
    assert agent.kernel.interpolant == COSINE
    clone = BC(BCConfig((16, 16), flow_steps=3, prediction="noise"), PROBLEM, RandomStreams([2, 3]))
    agent.start_from(clone.flow)
    before = RandomStreams([0, 1])
    noise = draw(before, agent.acting_noise(4))
    observations = before.normal(4, PROBLEM.observation_dim)
    theirs = clone.act(observations, {"flow": noise["flow"].squeeze(2)})
    torch.testing.assert_close(agent.act(observations, noise), theirs)
    first = train(agent, [0, 1], 1)
    assert first["path_kl"].abs().max() < 1e-9  # both policies are the clone
    metrics = train(agent, [0, 1], 4)
    assert bool((metrics["path_kl"] > 0.0).all())
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    assert played(agent, [0, 1]).shape == (2, 4, PROBLEM.chunk_dim)
    train(alone, [1], 2)


def test_clones_of_other_predictions_are_other_clones(tmp_path: Path) -> None:
    flow, diffusion = (
        plan_offline(OfflineRequest(preset="smoke", set=texts))
        for texts in ((), ("prediction=noise",))
    )
    places = set()
    for plan, prediction in ((flow, "velocity"), (diffusion, "noise")):
        (clone,), (pack,) = plan.pretraining, plan.packs
        config = plan.configs[clone.name]
        assert config.prediction == plan.configs[pack.name].prediction == prediction
        places.add(FlowCache.of(tmp_path, clone, config, "data", "float32").directory)
    assert len(places) == 2


def test_agents_that_need_a_flow_refuse_a_diffusion_policy() -> None:
    with pytest.raises(ValueError, match="'fql' starts from a flow policy"):
        plan_offline(
            OfflineRequest(preset="smoke", agent=("trqam", "fql"), set=("prediction=noise",))
        )
    plan_offline(
        OfflineRequest(preset="smoke", agent=("trqam", "rebrac"), set=("prediction=noise",))
    )


def test_the_default_is_a_flow() -> None:
    assert BCConfig().prediction == TRQAMConfig().prediction == "velocity"
    assert replace(BCConfig(), prediction="noise") != BCConfig()
