import copy

import pytest
import torch
from torch import Tensor

from qlearn import MLP, FlowActor, Learner, RandomStreams
from qlearn._adam import Adam


def network(seeds: list[int]) -> MLP:
    return MLP(len(seeds), 3, (8, 8), 2, layer_norm=True, streams=RandomStreams(seeds))


def losses(net: MLP, x: Tensor) -> Tensor:
    return (10 * net(x) - x[..., :2]).square().mean((-2, -1))


def train(net: MLP, learner: Learner, inputs: Tensor) -> None:
    for x in inputs:
        learner.step(losses(net, x))


def test_a_step_is_clip_then_adam_then_the_lagging_target() -> None:
    net = network([3])
    plain, target = copy.deepcopy(net), copy.deepcopy(net)
    learner = Learner(
        net.named_parameters(),
        [(target, net)],
        replicas=1,
        learning_rate=1e-2,
        target_rate=0.3,
        max_gradient_norm=0.5,
    )
    adam = torch.optim.Adam(plain.parameters(), lr=1e-2)
    average = [p.detach().clone() for p in plain.parameters()]
    for x in torch.randn(4, 1, 16, 3):
        report = learner.step(losses(net, x))
        adam.zero_grad()
        losses(plain, x).sum().backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        average = [
            0.7 * a + 0.3 * p.detach() for a, p in zip(average, plain.parameters(), strict=True)
        ]
        adam.step()
        torch.testing.assert_close(report.norm[0], norm, rtol=1e-4, atol=0)
        assert norm > 0.5
    for one, two in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)
    for one, two in zip(target.parameters(), average, strict=True):
        torch.testing.assert_close(one.detach(), two, rtol=1e-4, atol=1e-5)


def test_a_packed_run_learns_what_its_replicas_learn_alone() -> None:
    inputs = torch.randn(5, 3, 16, 3)
    pack = network([1, 2, 3])
    train(pack, Learner(pack.named_parameters(), replicas=3), inputs)
    for r, seed in enumerate((1, 2, 3)):
        solo = network([seed])
        train(solo, Learner(solo.named_parameters(), replicas=1), inputs[:, r : r + 1])
        for one, many in zip(solo.parameters(), pack.parameters(), strict=True):
            torch.testing.assert_close(one[0], many[r], rtol=1e-4, atol=1e-5)


def test_a_replica_that_breaks_leaves_the_others_as_they_would_be() -> None:
    inputs = torch.randn(6, 2, 16, 3)
    healthy, hurt = network([1, 2]), network([1, 2])
    train(healthy, Learner(healthy.named_parameters(), replicas=2), inputs)
    inputs[3, 1] = float("nan")
    learner = Learner(hurt.named_parameters(), replicas=2)
    train(hurt, learner, inputs)
    for one, two in zip(healthy.parameters(), hurt.parameters(), strict=True):
        assert torch.equal(one[0], two[0])
        assert two.isfinite().all()
    assert learner.failed_at.tolist() == [-1, 4]
    assert learner.guard.failed.tolist() == [False, True]
    assert learner.names[int(learner.guard.first_bad[1])] == "kernels.0"


def test_state_resumes_bit_for_bit() -> None:
    inputs = torch.randn(6, 2, 16, 3)
    whole = network([1, 2])
    train(whole, Learner(whole.named_parameters(), replicas=2), inputs)
    first = network([1, 2])
    learner = Learner(first.named_parameters(), replicas=2)
    train(first, learner, inputs[:3])
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    second = copy.deepcopy(first)
    resumed = Learner(second.named_parameters(), replicas=2)
    resumed.load_state_dict(state)
    train(second, resumed, inputs[3:])
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    other = MLP(2, 3, (), 2, layer_norm=False, streams=RandomStreams([1, 2]))
    with pytest.raises(ValueError, match="other parameters"):
        Learner(other.named_parameters(), replicas=2).load_state_dict(state)


def test_flow_actor_reads_observation_point_and_time() -> None:
    actor = FlowActor(2, 3, 4, (8,), layer_norm=False, streams=RandomStreams([0, 1]))
    observations, x, t = torch.randn(2, 5, 3), torch.randn(6, 2, 5, 4), torch.rand(6, 2, 5)
    velocity = actor(observations, x, t)
    assert velocity.shape == (6, 2, 5, 4)
    for k in range(6):
        joined = torch.cat([observations, x[k], t[k][..., None]], -1)
        torch.testing.assert_close(velocity[k], actor.network(joined))
    torch.testing.assert_close(actor.field(observations)(x, t), velocity)


def test_targets_that_move_every_third_step_move_then_alone() -> None:
    net, alike = network([3, 4]), network([3, 4])
    target = copy.deepcopy(net)
    learner = Learner(
        net.named_parameters(), [(target, net)], replicas=2, target_rate=0.3, target_every=3
    )
    every = Learner(
        alike.named_parameters(), [(copy.deepcopy(net), alike)], replicas=2, target_rate=0.3
    )
    moved = []
    for x in torch.randn(7, 2, 16, 3):
        before = [p.detach().clone() for p in target.parameters()]
        lagging = [p.detach().clone() for p in net.parameters()]
        learner.step(losses(net, x))
        every.step(losses(alike, x))
        moved.append(not torch.equal(before[0], next(iter(target.parameters()))))
        for one, old, online in zip(target.parameters(), before, lagging, strict=True):
            expected = old.lerp(online, 0.3) if moved[-1] else old
            torch.testing.assert_close(one.detach(), expected)
    assert moved == [False, False, True, False, False, True, False]
    # The parameters themselves do not read the targets here.
    for one, two in zip(net.parameters(), alike.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match="target_every must be at least 1, got 0"):
        Learner(net.named_parameters(), replicas=2, target_every=0)


class Plain(torch.nn.Module):
    """Scalars, tied weights, a frozen part, a buffer and a head that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.unused, self.frozen = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.head.weight = self.encoder.weight
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.gain * self.head(self.frozen(self.encoder(x)).tanh())
        return out


def test_a_plain_module_trains_as_a_loop_by_hand_does() -> None:
    torch.manual_seed(0)
    mine = Plain()
    hand = copy.deepcopy(mine)
    learner = Learner(
        mine.named_parameters(),
        replicas=1,
        learning_rate=1e-2,
        learning_rates={"encoder": 1e-3, "encoder.bias": 0.1},
        max_gradient_norm=0.5,
    )
    adam = torch.optim.Adam(
        [
            {"params": [hand.head.bias, hand.gain], "lr": 1e-2},
            {"params": [hand.encoder.weight], "lr": 1e-3},
            {"params": [hand.encoder.bias], "lr": 0.1},
        ]
    )
    for x in torch.randn(4, 16, 4):
        report = learner.step((10 * mine(x)).square().mean().reshape(1))
        adam.zero_grad()
        (10 * hand(x)).square().mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(
            [p for p in hand.parameters() if p.grad is not None], 0.5
        )
        adam.step()
        torch.testing.assert_close(report.norm[0], norm)
        assert norm > 0.5
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(value, hand.state_dict()[name], rtol=1e-4, atol=1e-6)
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    again = Learner(mine.named_parameters(), replicas=1)
    again.load_state_dict(state)
    assert all(torch.equal(v, state[n]) for n, v in again.state_dict().items())


def test_a_learner_says_what_it_cannot_train() -> None:
    plain = Plain()
    with pytest.raises(ValueError, match=r"loss has shape \(4,\), expected \(1,\)"):
        Learner(plain.named_parameters(), replicas=1).step(plain(torch.ones(4, 4)).mean(-1))
    with pytest.raises(ValueError, match="with replicas=3 every one needs a leading axis of 3"):
        Learner(plain.named_parameters(), replicas=3)
    with pytest.raises(ValueError, match=r"learning_rates names 'decoder'.*encoder"):
        Learner(plain.named_parameters(), replicas=1, learning_rates={"decoder": 1.0})
    with pytest.raises(ValueError, match=r"rate of 'encoder' is -0\.1; expected one of at least 0"):
        Learner(plain.named_parameters(), replicas=1, learning_rates={"encoder": -0.1})
    with pytest.raises(ValueError, match="nothing to train"):
        Learner(plain.requires_grad_(False).named_parameters(), replicas=1)


def test_adam_is_torchs_fused_one_bit_for_bit_and_continues_exactly() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shapes = {"a": (2, 30, 8), "b": (2, 8), "c": (3,)}
    mine = {name: drawn(*shape) for name, shape in shapes.items()}
    torchs = [torch.nn.Parameter(value.clone()) for value in mine.values()]
    rates = {"a": 1e-2, "b": 1e-2, "c": 1e-3}
    ours = Adam(mine.items(), rates)
    groups = [{"params": [p], "lr": rates[n]} for n, p in zip(mine, torchs, strict=True)]
    reference = torch.optim.Adam(groups, fused=True)
    assert ours.state_dict() == {}
    for step in range(6):
        if step == 3:
            saved = {name: value.clone() for name, value in ours.state_dict().items()}
            ours = Adam(mine.items(), rates)
            ours.load_state_dict(saved)
        gradients = [drawn(*shape) for shape in shapes.values()]
        ours.step(gradients)
        for parameter, gradient in zip(torchs, gradients, strict=True):
            parameter.grad = gradient
        reference.step()
    for one, two in zip(mine.values(), torchs, strict=True):
        torch.testing.assert_close(one, two.detach(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="of other parameters"):
        Adam(list(mine.items())[:2], rates).load_state_dict(saved)


def test_gradients_that_were_summed_are_a_step() -> None:
    whole, parts = network([1, 2]), network([1, 2])
    x = torch.randn(2, 16, 3)
    one, two = (Learner(n.named_parameters(), replicas=2) for n in (whole, parts))
    one.step(losses(whole, x))
    halves = [two.gradients(losses(parts, half) / 2) for half in x.chunk(2, dim=1)]
    two.apply([a + b for a, b in zip(*halves, strict=True)])
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
