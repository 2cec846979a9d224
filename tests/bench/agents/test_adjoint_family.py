"""How TRQAM, QAM, QAM-E and QAM-F differ, and where they coincide."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.agents import draw
from qlearn import ChunkBatch, RandomStreams

from .small_agents import ROWS, batch_of, build, played, train


def measured(agent: Any, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in agent.losses(batch, noise).items()}


@pytest.mark.parametrize(
    ("variant", "setting"), [("qam-e", "edit_scale"), ("qam-f", "distill_weight")]
)
@pytest.mark.usefixtures("double")
def test_a_variant_switched_off_is_qam(variant: str, setting: str) -> None:
    switched_off: dict[str, Any] = {setting: 0.0}
    qam, other = build("qam", [0]), build(variant, [0], **switched_off)
    assert qam.state_dict().keys() == other.state_dict().keys()
    streams = RandomStreams([0]).spawn("batches")
    for _ in range(3):
        batch, noise = batch_of(streams), draw(streams, other.noise(ROWS))
        ours, theirs = qam.update(batch, noise), other.update(batch, noise)
        for name, value in ours.items():
            assert torch.equal(theirs[name], value), name
    observations = streams.normal(4, 5)
    noise = draw(streams, other.acting_noise(4))
    assert torch.equal(qam.act(observations, noise), other.act(observations, noise))


@pytest.mark.usefixtures("double")
def test_at_a_fixed_lambda_trqam_is_qam_at_its_inverse() -> None:
    # TRQAM's loss is lambda times QAM's at tau = 1/lambda.
    lam = 2.4
    trqam = build("trqam", [0], dual_rate=0.0, lambda_initial=lam, lambda_scale=1.0)
    qam = build("qam", [0], inverse_temperature=1.0 / lam)
    train(qam, [1], 3)  # apart from the reference, so that the KL is not zero
    trqam.load_state_dict(qam.state_dict(), strict=False)
    streams = RandomStreams([0]).spawn("batches")
    batch, noise = batch_of(streams), draw(streams, qam.noise(ROWS))
    ours, theirs = measured(qam, batch, noise), measured(trqam, batch, noise)
    torch.testing.assert_close(theirs["adjoint_loss"], lam * ours["adjoint_loss"])
    torch.testing.assert_close(theirs["path_kl"], ours["path_kl"])
    assert float(ours["path_kl"]) > 1e-6
    train(trqam, [0], 3)
    assert float(trqam.dual.lambda_) == pytest.approx(lam)


@pytest.mark.usefixtures("double")
def test_the_external_trust_region_is_qam_plus_a_penalty() -> None:
    external = build("trqam", [0], trust_region="external", temperature=0.5, lambda_initial=2.0)
    qam = build("qam", [0], inverse_temperature=2.0)
    train(qam, [1], 3)
    external.load_state_dict(qam.state_dict(), strict=False)
    streams = RandomStreams([0]).spawn("batches")
    batch, noise = batch_of(streams), draw(streams, qam.noise(ROWS))
    ours, theirs = measured(qam, batch, noise), measured(external, batch, noise)
    torch.testing.assert_close(theirs["adjoint_loss"], 0.5 * ours["adjoint_loss"])
    torch.testing.assert_close(theirs["kl_penalty"], 3.0 * 2.0 * ours["path_kl"])
    before = float(theirs["kl_penalty"])
    total = float(external.update(batch, noise)["total_loss"])
    parts = sum(float(theirs[name]) for name in ("critic_loss", "flow_loss", "adjoint_loss"))
    assert total == pytest.approx(parts + before)


def test_the_external_penalty_pulls_towards_the_reference() -> None:
    realised = []
    for lam in (0.01, 100.0):
        agent = build(
            "trqam",
            [0],
            trust_region="external",
            dual_rate=0.0,
            lambda_initial=lam,
            learning_rate=2e-3,
        )
        with torch.no_grad():
            agent.target_critic.kernels[-1].mul_(20.0)  # much to gain away from the reference
        streams = RandomStreams([0]).spawn("batches")
        batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
        for _ in range(60):
            metrics = agent.update(batch, noise)
        realised.append(float(metrics["path_kl"]))
    assert realised[0] > 10.0 * realised[1] > 0.0


def test_edits_are_bounded_by_their_scale() -> None:
    agent = build("qam-e", [0], edit_scale=0.2)
    streams = RandomStreams([0])
    observations, flow_noise = streams.normal(50, 5), streams.normal(50, 6)
    noise = {"flow": flow_noise.unsqueeze(2), "edit": 5.0 * streams.normal(50, 1, 6)}
    edited = agent.act(observations, noise)
    plain = build("qam-e", [0], edit_scale=0.0).act(observations, noise)
    assert 0.15 < float((edited - plain).abs().max()) <= 0.2 + 1e-6


def test_the_edit_temperature_moves_the_entropy_to_its_target() -> None:
    # Per component: a tanh-Gaussian on (-1, 1) has at most log 2 = 0.69 nats.
    agent = build("qam-e", [0], target_entropy=5.0)
    before = float(agent.temperature.log_value.detach())
    train(agent, [0], 5)
    assert float(agent.temperature.log_value.detach()) > before
    agent = build("qam-e", [0], target_entropy=-50.0)
    train(agent, [0], 5)
    assert float(agent.temperature.log_value.detach()) < before


def test_the_one_step_policy_acts_in_qam_f() -> None:
    agent = build("qam-f", [0])
    with torch.no_grad():
        for parameter in agent.fast.parameters():
            parameter.add_(1.0)
    changed = build("qam-f", [0])
    assert torch.equal(played(agent, [0]), played(changed, [0]))
    with torch.no_grad():
        changed.one_step.network.biases[-1].add_(0.1)
    assert not torch.equal(played(agent, [0]), played(changed, [0]))


@pytest.mark.parametrize("name", ["trqam", "qam", "qam-e", "qam-f"])
def test_only_critic_and_reference_see_the_data(name: str) -> None:
    # The fine-tuned policy learns from the critic alone: the actions of the batch give no gradient.
    agent = build(name, [0])
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    losses = agent.losses(batch, noise)
    for parameter in agent.fast.parameters():
        for loss in ("critic_loss", "flow_loss"):
            (gradient,) = torch.autograd.grad(
                losses[loss].sum(), parameter, retain_graph=True, allow_unused=True
            )
            assert gradient is None
    for parameter in (*agent.slow.parameters(), *agent.critic.parameters()):
        (gradient,) = torch.autograd.grad(
            losses["adjoint_loss"].sum(), parameter, retain_graph=True, allow_unused=True
        )
        assert gradient is None
