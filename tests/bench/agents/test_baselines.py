"""ReBRAC and RLPD by their formulas; choices that FQL, IFQL and DSRL make."""

import pytest
import torch

from bench.agents import draw, networks
from bench.agents.acting import best_of, flow_action
from qlearn import RandomStreams

from .small_agents import PROBLEM, ROWS, batch_of, build, played, train


@pytest.mark.usefixtures("double")
def test_rebrac_losses() -> None:
    agent = build("rebrac", [0], rho=0.7, target_noise=0.4, target_noise_clip=0.3)
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    losses = agent.losses(batch, noise)

    smoothing = (0.4 * noise["next_action"]).clamp(-0.3, 0.3)
    next_action = torch.tanh(agent.target_actor(batch.next_observations)) + smoothing
    next_qs = agent.target_critic(batch.next_observations, next_action.clamp(-1.0, 1.0))
    next_value = next_qs.mean(1) - 0.7 * next_qs.std(1, correction=0)
    target = batch.rewards + 0.995**3 * batch.masks * next_value
    qs = agent.critic(batch.observations, batch.actions)
    critic_loss = ((qs - target.unsqueeze(1)).square() * batch.valid.unsqueeze(1)).mean((1, 2))
    torch.testing.assert_close(losses["critic_loss"], critic_loss)

    action = torch.tanh(agent.actor(batch.observations))
    qs = agent.critic(batch.observations, action)
    values = qs.mean(1) - 0.7 * qs.std(1, correction=0)
    torch.testing.assert_close(losses["q_loss"], -values.mean(1) / values.abs().mean(1))
    distance = ((action - batch.actions) ** 2).sum(-1) * batch.valid
    torch.testing.assert_close(losses["cloning_loss"], distance.mean(1))


@pytest.mark.usefixtures("double")
def test_rebracs_policy_gradient_does_not_depend_on_the_critics_scale() -> None:
    gradients = []
    for factor in (1.0, 50.0):
        agent = build("rebrac", [0])
        with torch.no_grad():
            agent.critic.kernels[-1].mul_(factor)
        streams = RandomStreams([0])
        batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
        loss = agent.losses(batch, noise)["q_loss"].sum()
        gradients.append(torch.autograd.grad(loss, agent.actor.kernels[0])[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert float(gradients[0].abs().max()) > 0.0


def test_rebrac_plays_its_mean_unless_noise_is_asked_for() -> None:
    agent = build("rebrac", [0])
    observations, streams = RandomStreams([1]).normal(4, 5), RandomStreams([2])
    first, second = (agent.act(observations, draw(streams, agent.acting_noise(4))) for _ in "12")
    assert torch.equal(first, second)
    assert float(first.abs().max()) < 0.5  # the last layer starts small
    noisy = build("rebrac", [0], acting_noise_std=5.0, target_noise_clip=0.25)
    moved = (noisy.act(observations, {"action": streams.normal(4, 6)}) - first).abs()
    assert 0.2 < float(moved.max()) <= 0.25 + 1e-6


@pytest.mark.usefixtures("double")
def test_rlpd_losses() -> None:
    agent = build("rlpd", [0], rho=0.7, target_entropy=-0.25)
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    losses = agent.losses(batch, noise)

    next_action, _ = agent.actor(batch.next_observations).sample(noise["next_action"])
    next_qs = agent.target_critic(batch.next_observations, next_action)
    next_value = next_qs.mean(1) - 0.7 * next_qs.std(1, correction=0)
    target = batch.rewards + 0.995**3 * batch.masks * next_value
    qs = agent.critic(batch.observations, batch.actions)
    critic_loss = ((qs - target.unsqueeze(1)).square() * batch.valid.unsqueeze(1)).mean((1, 2))
    torch.testing.assert_close(losses["critic_loss"], critic_loss)

    action, log_prob = agent.actor(batch.observations).sample(noise["action"])
    qs = agent.critic(batch.observations, action)
    values = qs.mean(1) - 0.7 * qs.std(1, correction=0)
    torch.testing.assert_close(losses["actor_loss"], (log_prob - values).mean(1))
    torch.testing.assert_close(losses["alpha_loss"], -log_prob.mean(1) + 0.25 * PROBLEM.chunk_dim)


@pytest.mark.usefixtures("double")
def test_rlpd_holds_its_policy_at_the_data_where_asked_to() -> None:
    streams = RandomStreams([0])
    plain, held = build("rlpd", [0]), build("rlpd", [0], cloning_weight=0.3)
    batch, noise = batch_of(streams), draw(streams, plain.noise(ROWS))
    batch.actions[0, 0, :2] = torch.tensor([1.0, -1.0])  # where the density is 0 or infinite
    losses = held.losses(batch, noise)

    law = held.actor(batch.observations)
    clipped = batch.actions.clamp(-1.0 + 1e-5, 1.0 - 1e-5)
    normal = torch.distributions.Normal(law.mean, law.std)
    squashed = torch.distributions.TransformedDistribution(
        normal, torch.distributions.TanhTransform()
    )
    expected = -(squashed.log_prob(clipped).sum(-1) * batch.valid).mean(1)
    torch.testing.assert_close(losses["cloning_loss"], expected)

    assert "cloning_loss" not in plain.losses(batch, noise)
    first, second = (agent.update(batch, noise)["total_loss"] for agent in (plain, held))
    torch.testing.assert_close(second - first, 0.3 * expected)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("rebrac", "q_loss"),
        ("rlpd", "actor_loss"),
        ("dsrl", "actor_loss"),
        ("fql", "q_loss"),
        ("qam-f", "q_loss"),
        ("qam-e", "edit_q_loss"),
        ("rql", "actor_loss"),
    ],
)
def test_climbing_a_critic_leaves_it_as_it_is(name: str, loss: str) -> None:
    agent = build(name, [0])
    streams = RandomStreams([0])
    losses = agent.losses(batch_of(streams), draw(streams, agent.noise(ROWS)))
    critics = [p for key, p in agent.named_parameters() if "critic" in key and p.requires_grad]
    others = [p for key, p in agent.named_parameters() if "critic" not in key and p.requires_grad]
    for parameters, moved in ((critics, False), (others, True)):
        gradients = torch.autograd.grad(
            losses[loss].sum(), parameters, retain_graph=True, allow_unused=True
        )
        assert any(g is not None and bool(g.abs().max() > 0) for g in gradients) is moved


def test_ifql_can_start_from_scratch_as_published() -> None:
    clone = networks.flow_actor(PROBLEM, (16, 16), RandomStreams([9]), layer_norm=False)
    kernel = clone.network.kernels[0]
    for from_scratch in (False, True):
        agent = build("ifql", [0], from_scratch=from_scratch)
        agent.start_from(clone)
        assert torch.equal(agent.flow.network.kernels[0], kernel) is not from_scratch


def test_ifqls_critic_never_sees_an_action_of_the_policy() -> None:
    # In-sample learning: the losses of value and critic do not depend on the flow.
    agent = build("ifql", [0])
    streams = RandomStreams([0])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    before = agent.losses(batch, noise)
    with torch.no_grad():
        for parameter in agent.flow.parameters():
            parameter.add_(1.0)
    after = agent.losses(batch, noise)
    assert torch.equal(before["critic_loss"], after["critic_loss"])
    assert torch.equal(before["value_loss"], after["value_loss"])
    assert not torch.equal(before["flow_loss"], after["flow_loss"])


def test_dsrl_bounds_the_noise_that_it_chooses() -> None:
    agent = build("dsrl", [0], noise_scale=0.7)
    seen: list[torch.Tensor] = []
    original = agent.steer

    def steer(observations: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        seen.append(latent)
        return torch.as_tensor(original(observations, latent))

    agent.steer = steer
    streams = RandomStreams([0])
    agent.act(streams.normal(50, 5), {"latent": 5.0 * streams.normal(50, 1, 6)})
    assert 0.6 < float(seen[0].abs().max()) <= 0.7


def test_dsrls_critic_on_noise_learns_the_critic_on_actions() -> None:
    agent = build("dsrl", [0], learning_rate=3e-3)
    first = float(train(agent, [0], 1)["distill_loss"])
    last = float(train(agent, [0], 150)["distill_loss"])
    assert last < 0.5 * first
    assert played(agent, [0]).shape == (1, 4, PROBLEM.chunk_dim)


def test_best_of_plays_the_most_valuable_candidate() -> None:
    streams = RandomStreams([0, 1])
    observations, noise = streams.normal(3, 2), streams.normal(3, 7, 4)
    chosen = best_of(
        noise, observations, policy=lambda o, x: x, value=lambda o, a: a.sum(-1) * o[..., 0]
    )
    for r in range(2):
        for n in range(3):
            values = noise[r, n].sum(-1) * observations[r, n, 0]
            assert torch.equal(chosen[r, n], noise[r, n, values.argmax()])


def test_the_end_of_a_flow_is_clipped_and_carries_no_gradient() -> None:
    speed = torch.tensor(3.0, requires_grad=True)
    end = flow_action(lambda x, t: speed * torch.sign(x), torch.tensor([[[0.5, -0.1]]]), 4)
    assert end.tolist() == [[[1.0, -1.0]]]
    assert not end.requires_grad
