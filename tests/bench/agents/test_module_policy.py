"""A user's own module as the policy of an agent."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from bench.agents import Problem, draw
from bench.agents.critics import ContextEncoder, ModuleCritic, OverContext, OwnCritic
from bench.agents.module_policy import ModulePolicy, OwnPolicy
from flowsde import MemorylessEuler, flow_matching_loss, ode_sample, sample_path, velocities_along
from qlearn import ChunkBatch, FlowActor, LeafSpec, ObservationNormalizer, RandomStreams
from trustregion import DualDescent, path_kl

from .small_agents import PROBLEM, ROWS, batch_of, build, played, train

FLOW_AGENTS = ("bc", "trqam", "sqam", "qam", "qam-e", "qam-f", "fql", "ifql", "dsrl", "cgql-l")


class Perceptron(nn.Module):
    """The project's perceptron with one replica's parameters, as a user would write it."""

    def __init__(self, actor: FlowActor, event: tuple[int, int] = (3, 2)) -> None:
        super().__init__()
        self.event = event
        layers: list[nn.Module] = []
        network = actor.network
        for kernel, bias in zip(network.kernels, network.biases, strict=True):
            layer = nn.Linear(*kernel.shape[1:])
            with torch.no_grad():
                layer.weight.copy_(kernel[0].T)
                layer.bias.copy_(bias[0])
            layers += [layer, nn.GELU(approximate="tanh")]
        self.layers = nn.Sequential(*layers[:-1])
        self.encoded = 0
        self.asked = 0

    def encode(self, observations: Tensor) -> dict[str, Tensor]:
        self.encoded += 1
        return {"state": observations}

    def velocity(self, context: dict[str, Tensor], x: Tensor, t: Tensor) -> Tensor:
        self.asked += 1
        assert x.shape[1:] == self.event
        assert t.dtype == torch.float32
        joined = torch.cat([context["state"], x.flatten(1), t[:, None]], -1)
        out: Tensor = self.layers(joined)
        return out.unflatten(-1, self.event)


class ForwardOnly(nn.Module):
    """The same function as one ``forward(observations, x, t)`` in the convention of openpi."""

    def __init__(self, inner: Perceptron) -> None:
        super().__init__()
        self.inner = inner
        self.dropout = nn.Dropout(0.5)

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return -self.dropout(self.inner.velocity({"state": observations}, x, 1.0 - t))


def plain_copy_of(actor: Any) -> Perceptron:
    return Perceptron(copy.deepcopy(actor))


def with_policy(policy: OwnPolicy, **rest: Any) -> Problem:
    return Problem(
        PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.horizon, policy=policy, **rest
    )


def actor_of(agent: Any) -> Any:
    return getattr(agent, "slow", None) or agent.flow


@pytest.mark.parametrize("name", FLOW_AGENTS)
def test_every_flow_agent_trains_a_module_as_it_trains_the_perceptron(name: str) -> None:
    ours = build(name, [4])
    module = plain_copy_of(actor_of(ours))
    before = copy.deepcopy(module.state_dict())
    theirs = build(name, [4], with_policy(OwnPolicy.copies_of(module)))
    # The perceptron's parameters are drawn between those of the other networks.
    rest = {n: v for n, v in ours.state_dict().items() if n in theirs.state_dict()}
    theirs.load_state_dict(theirs.state_dict() | rest)
    for updates in (1, 3):
        expected = train(ours, [5], updates)
        for key, value in train(theirs, [5], updates).items():
            torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(played(theirs, [5]), played(ours, [5]), rtol=1e-3, atol=1e-4)
    # What the user handed over is left as it was.
    assert all(torch.equal(value, before[n]) for n, value in module.state_dict().items())


class ByHand:
    """TRQAM written for one module and one vector, from the four libraries."""

    def __init__(self, agent: Any, module: Perceptron) -> None:
        self.slow, self.fast, self.base = (copy.deepcopy(module) for _ in range(3))
        self.critic, self.target = copy.deepcopy(agent.critic), copy.deepcopy(agent.critic)
        self.dual = DualDescent(budget=agent.config.kl_budget)
        self.kernel = MemorylessEuler(agent.config.flow_steps, event_ndim=2)
        self.trained = [p for m in (self.slow, self.critic, self.fast) for p in m.parameters()]
        self.adam = torch.optim.Adam(self.trained, lr=agent.config.learning_rate)

    def loss(self, batch: Any, noise: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        steps, event = self.kernel.steps, (ROWS, 3, 2)
        o, x0 = batch.observations[0], noise["path_x0"].reshape(event)

        def field(net: Perceptron, seen: Tensor = o) -> Any:
            def velocity(x: Tensor, t: Tensor) -> Tensor:
                rows = seen.expand(*t.shape[:-1], *seen.shape).reshape(-1, seen.shape[-1])
                context = {"state": rows}
                return net.velocity(context, x.reshape(-1, 3, 2), t.reshape(-1)).reshape(x.shape)

            return velocity

        def value(action: Tensor) -> Tensor:
            q: Tensor = self.target(batch.observations, action.reshape(1, ROWS, -1))
            return q.mean(-2)

        with torch.no_grad():
            step_noise = noise["path_noise"].reshape(steps, *event)
            path = sample_path(
                self.kernel, field(self.fast), x0, step_noise, final_velocity=field(self.base)
            )
            base = velocities_along(self.kernel, field(self.base), path)
        end = -terminal_gradient(value, path.sample, clip=(-1.0, 1.0))
        adjoints = lean_adjoint(self.kernel, field(self.base), path, end)
        fine = velocities_along(self.kernel, field(self.fast), path)
        matching = matching_loss(self.kernel, fine, base, adjoints, float(self.dual.lambda_)).mean()
        with torch.no_grad():
            start = noise["next_action"].reshape(event)
            after = ode_sample(
                field(self.fast, batch.next_observations[0]), start, steps, event_ndim=2
            )
            q = self.target(batch.next_observations, after.clamp(-1, 1).reshape(1, ROWS, -1))[0]
            q = q.mean(0) - 0.5 * q.std(0, correction=0)
            target = batch.rewards[0] + 0.995**3 * batch.masks[0] * q
        td = self.critic(batch.observations, batch.actions)[0] - target
        x1, start = batch.actions.reshape(event), noise["bc_x0"].reshape(event)
        cloning = flow_matching_loss(field(self.slow), x1, start, noise["bc_t"][0], event_ndim=2)
        total = (td.square() * batch.valid[0]).mean() + (cloning * batch.valid[0]).mean()
        return total + matching, path_kl(self.kernel, fine, base).mean().detach() / 3

    def update(self, batch: Any, noise: dict[str, Tensor]) -> Tensor:
        loss, kl = self.loss(batch, noise)
        self.adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.trained, 1.0)
        with torch.no_grad():
            for average, online in ((self.target, self.critic), (self.base, self.slow)):
                for a, p in zip(average.parameters(), online.parameters(), strict=True):
                    a.lerp_(p, 0.005)
        self.adam.step()
        self.dual.update(kl.reshape(1))
        return loss.detach()


def test_trqam_with_a_module_is_the_loop_written_by_hand() -> None:
    module = plain_copy_of(build("trqam", [4]).slow)
    agent = build("trqam", [4], with_policy(OwnPolicy.copies_of(module)))
    hand = ByHand(agent, module)
    mine, theirs = RandomStreams([5]), RandomStreams([5])
    for _ in range(4):
        losses = []
        for streams, update in ((mine, agent.update), (theirs, hand.update)):
            batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
            losses.append(update(batch, noise))
        torch.testing.assert_close(losses[0]["total_loss"][0], losses[1], rtol=1e-5, atol=1e-6)
    for part, by_hand in ((agent.fast.module, hand.fast), (agent.target_slow.module, hand.base)):
        for one, two in zip(part.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(agent.dual.lam, hand.dual.lam, rtol=1e-5, atol=0)


def test_observations_are_encoded_once_for_a_field_and_with_a_gradient() -> None:
    module = plain_copy_of(build("trqam", [4]).slow)
    policy = ModulePolicy(module, 3, 2)
    observations = torch.randn(1, 5, 5)
    field = policy.field(observations)
    for lead in ((), (4,), (2, 3)):
        x, t = torch.randn(*lead, 1, 5, 6), torch.rand(*lead, 1, 1)
        velocity = field(x, t)
        assert velocity.shape == x.shape
        torch.testing.assert_close(policy(observations, x, t), velocity)
    assert (module.encoded, module.asked) == (4, 6)
    agent = build("trqam", [4], with_policy(OwnPolicy.copies_of(module)))
    train(agent, [5], 1)
    # Fine-tuned: the path and the action after it. Base: the path. Cloning: its own.
    encoded = [p.module.encoded - 4 for p in (agent.fast, agent.target_slow, agent.slow)]
    assert encoded == [2, 1, 1]


@given(st.integers(0, 3), st.integers(1, 4))
def test_a_model_of_the_other_convention_gives_the_same_velocities(lead: int, rows: int) -> None:
    inner = plain_copy_of(build("bc", [4]).flow)
    here = ModulePolicy(inner, 3, 2)
    there = ModulePolicy(ForwardOnly(inner), 3, 2, "noise_at_one")
    there.train()  # Stays in evaluation: the dropout of the second model is off.
    observations = torch.randn(1, rows, 5)
    x = torch.randn(*(2,) * lead, 1, rows, 6)
    t = torch.rand(x.shape[:-1])
    torch.testing.assert_close(
        there(observations, x, t), here(observations, x, t), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (nn.ModuleList(), "ModuleList has neither velocity nor forward"),
        (lambda x: x, "got function as a policy"),
    ],
)
def test_what_is_no_velocity_model_is_refused(module: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ModulePolicy(module, 3, 2)


def test_a_module_is_one_replica() -> None:
    module = plain_copy_of(build("bc", [4]).flow)
    with pytest.raises(ValueError, match="one run at a time, not as 2 replicas"):
        build("trqam", [0, 1], with_policy(OwnPolicy.copies_of(module)))
    with pytest.raises(ValueError, match="are of 2 replicas"):
        ModulePolicy(module, 3, 2).field(torch.randn(2, 4, 5))


def test_a_perceptron_of_ours_stays_replicated_and_draws_what_it_always_draws() -> None:
    usual, start = build("trqam", [4]), build("trqam", [9])
    usual.start_from(start.slow)
    told = build("trqam", [4], with_policy(OwnPolicy.copies_of(start.slow)))
    for name, value in told.state_dict().items():
        assert torch.equal(value, usual.state_dict()[name]), name


def test_frozen_parts_stay_and_parts_learn_at_their_own_rate() -> None:
    module = plain_copy_of(build("trqam", [4]).slow)
    module.layers[0].requires_grad_(False)
    problem = with_policy(OwnPolicy.copies_of(module), learning_rates={"layers.2": 0.0})
    agent = build("trqam", [4], problem)
    train(agent, [5], 2)
    moved = {
        name: not torch.equal(value, module.state_dict()[name])
        for name, value in agent.fast.module.state_dict().items()
    }
    assert moved == {n: n.startswith("layers.4") for n in moved}


LEAVES = {
    "image": LeafSpec((3, 12, 12), torch.uint8),
    "state": LeafSpec((4,), torch.float32),
    "goal": LeafSpec((), torch.float32),
}


class Seeing(nn.Module):
    """A policy over an image, a vector and a number; its context is a tree."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.body = nn.Conv2d(3, 2, 3, stride=4), nn.Linear(2 * 9 + 5, 4)
        self.head = nn.Linear(4 + 6 + 1 + 1, 6)

    def encode(self, seen: dict[str, Tensor]) -> dict[str, Any]:
        assert {k: v.dtype for k, v in seen.items()} == {k: s.dtype for k, s in LEAVES.items()}
        image = self.eye(seen["image"] / 255.0).flatten(1)
        joined = torch.cat([image, seen["state"], seen["goal"][:, None]], -1)
        return {"body": self.body(joined).tanh(), "rest": [seen["goal"]]}

    def velocity(self, context: dict[str, Any], x: Tensor, t: Tensor) -> Tensor:
        parts = [context["body"], context["rest"][0][:, None], x.flatten(1), t[:, None]]
        out: Tensor = self.head(torch.cat(parts, -1))
        return out.reshape(x.shape)


class Judging(nn.Module):
    """A critic of the user's own, three values each."""

    def __init__(self, values: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(4 + 6, values)

    def forward(self, seen: dict[str, Tensor], actions: Tensor) -> Tensor:
        out: Tensor = self.layer(torch.cat([seen["state"], actions.flatten(1)], -1)).T
        return out


def seen_batch(streams: RandomStreams) -> ChunkBatch:
    def observed() -> dict[str, Tensor]:
        return {
            "image": streams.integers(256, ROWS, 3, 12, 12).to(torch.uint8),
            "state": streams.normal(ROWS, 4),
            "goal": streams.normal(ROWS),
        }

    plain = batch_of(streams)
    return replace(plain, observations=observed(), next_observations=observed())


@pytest.mark.parametrize("critic", [None, OwnCritic(Judging), OverContext(OwnPolicy(Seeing))])
@pytest.mark.parametrize("name", ["bc", "trqam", "sqam", "qam"])
def test_observations_may_be_named_leaves(name: str, critic: Any) -> None:
    streams = RandomStreams([1])
    batch = seen_batch(streams)
    rows = {n: leaf[0] for n, leaf in batch.observations.items()}
    problem = with_policy(
        OwnPolicy(Seeing), observation=LEAVES, normalizer=ObservationNormalizer.fit(rows),
        critic=critic,
    )  # fmt: skip
    more = {"endpoint_kl_samples": 2, "path_kl_samples": 2} if name in ("trqam", "sqam") else {}
    agent = build(name, [4], problem, num_action_samples=2, **more)
    before = {n: p.detach().clone() for n, p in agent.named_parameters()}
    for _ in range(2):
        metrics = agent.update(seen_batch(streams), draw(streams, agent.noise(ROWS)))
    assert all(bool(value.isfinite().all()) for value in metrics.values())
    still = {n for n, p in agent.named_parameters() if torch.equal(p, before[n])}
    assert not still & set(agent.learner.names)
    chunks = agent.act(batch.observations, draw(streams, agent.acting_noise(ROWS)))
    assert chunks.shape == (1, ROWS, 6)
    if more:
        measured = agent.measure(batch, streams)
        assert {k: v.shape for k, v in measured.items()} == {
            "endpoint_kl": (1,), "realised_path_kl": (1,),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("critic", "says"),
    [
        (lambda seen, a: torch.zeros(ROWS, 1), rf"returned shape \({ROWS}, 1\) for {ROWS} obs"),
        (lambda seen, a: torch.zeros(()), r"returned shape \(\)"),
        (lambda seen, a: 3.0, "returned float, expected values"),
    ],
)
def test_a_critic_of_another_shape_is_refused(critic: Any, says: str) -> None:
    class Wrong(nn.Module):
        def forward(self, seen: Tensor, actions: Tensor) -> Any:
            return critic(seen, actions)

    wrong = ModuleCritic(Wrong(), (3, 2))
    with pytest.raises(ValueError, match=says):
        wrong(torch.zeros(1, ROWS, 5), torch.zeros(1, ROWS, 6))
    with pytest.raises(ValueError, match="one run at a time, not as 2 replicas"):
        OwnCritic(Wrong).build((3, 2), RandomStreams([0, 1]))


def test_critics_of_a_users_policy_see_what_is_normalised() -> None:
    """The module is given raw numbers, the critic the same ones as of a normalised data set."""
    shift, scale = torch.arange(5.0), torch.arange(1.0, 6.0)
    module = plain_copy_of(build("trqam", [4]).slow)
    normal = with_policy(OwnPolicy.copies_of(module))
    raw = with_policy(OwnPolicy.copies_of(module), normalizer=ObservationNormalizer(shift, scale))
    one, two = build("trqam", [4], normal), build("trqam", [4], raw)
    observations, actions = torch.randn(1, ROWS, 5), torch.randn(1, ROWS, 6)
    torch.testing.assert_close(
        two.critic(observations * scale + shift, actions), one.critic(observations, actions)
    )


@pytest.mark.parametrize("name", ["bc", "trqam", "sqam", "qam"])
def test_entries_that_do_not_count_change_nothing_and_are_played_as_zero(name: str) -> None:
    """Padding of the actions may be anything, as far as the entries that count are concerned."""
    kept = (True, False) * 3

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.counts, self.padding = nn.Linear(5 + 3 + 1, 3), nn.Linear(1, 3)

        def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Tensor:
            seen = torch.cat([observations, x[..., 0], t[:, None]], -1)
            return torch.stack([self.counts(seen), self.padding(t[:, None])], -1)

    found = []
    for padding in (0.0, 0.7):
        problem = with_policy(OwnPolicy(Padded), action_mask=kept)
        more = {"value_penalty": 0.3} if name != "bc" else {}
        agent = build(name, [4], problem, **more)
        streams = RandomStreams([5])
        for _ in range(2):
            batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
            actions = torch.where(torch.tensor(kept), batch.actions, padding)
            metrics = agent.update(replace(batch, actions=actions), noise)
        acting = draw(streams, agent.acting_noise(ROWS))
        chunks = agent.act(batch.observations, acting)
        assert torch.equal(chunks == 0.0, ~torch.tensor(kept).expand_as(chunks))
        found.append((metrics, dict(agent.named_parameters())))
    for key, value in found[0][0].items():
        assert torch.equal(value, found[1][0][key]), key
    for part, value in found[0][1].items():
        assert torch.equal(value, found[1][1][part]), part


@pytest.mark.parametrize("name", ["trqam", "sqam", "qam", "qam-f"])
def test_micro_batches_are_the_batch(name: str) -> None:
    module = plain_copy_of(build("trqam", [4]).slow)
    agents = [
        build(name, [4], with_policy(OwnPolicy.copies_of(module), micro_batches=parts))
        for parts in (1, 4)
    ]
    for updates in (1, 2):
        expected, found = (train(agent, [5], updates) for agent in agents)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-6)
    rows = [agent.fast.module.encoded for agent in agents]
    assert rows[1] == 4 * rows[0]


def test_critics_over_the_context_share_a_frozen_policy() -> None:
    module = Seeing()
    encoder = ContextEncoder(copy.deepcopy(module), LEAVES)
    assert encoder.context_dim == 4 + 1
    assert not list(encoder.parameters())
    assert not encoder.state_dict()
    assert copy.deepcopy(encoder)._shared is encoder._shared
    seen = {n: leaf[:1] for n, leaf in seen_batch(RandomStreams([1])).observations.items()}
    context = encoder(seen)
    body = module.encode({n: leaf[0] for n, leaf in seen.items()})
    expected = torch.cat([body["body"], body["rest"][0][:, None]], -1)
    torch.testing.assert_close(context[0], torch.nn.functional.layer_norm(expected, (5,)))
    assert not context.requires_grad
    with pytest.raises(ValueError, match=r"ForwardOnly has no encode"):
        ContextEncoder(ForwardOnly(plain_copy_of(build("bc", [4]).flow)), LEAVES)

    class Odd(Seeing):
        def encode(self, seen: dict[str, Tensor]) -> Any:
            return {"one": torch.zeros(1, 3)}

    with pytest.raises(ValueError, match=r"parts of shapes \[\(1, 3\)\] for 2 observations"):
        ContextEncoder(Odd(), LEAVES)
