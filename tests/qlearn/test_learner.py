import copy

import pytest
import torch
from torch import Tensor

from qlearn import MLP, FlowActor, Learner, RandomStreams


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
    train(pack, Learner(pack.named_parameters()), inputs)
    for r, seed in enumerate((1, 2, 3)):
        solo = network([seed])
        train(solo, Learner(solo.named_parameters()), inputs[:, r : r + 1])
        for one, many in zip(solo.parameters(), pack.parameters(), strict=True):
            torch.testing.assert_close(one[0], many[r], rtol=1e-4, atol=1e-5)


def test_a_replica_that_breaks_leaves_the_others_as_they_would_be() -> None:
    inputs = torch.randn(6, 2, 16, 3)
    healthy, hurt = network([1, 2]), network([1, 2])
    train(healthy, Learner(healthy.named_parameters()), inputs)
    inputs[3, 1] = float("nan")
    learner = Learner(hurt.named_parameters())
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
    train(whole, Learner(whole.named_parameters()), inputs)
    first = network([1, 2])
    learner = Learner(first.named_parameters())
    train(first, learner, inputs[:3])
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    second = copy.deepcopy(first)
    resumed = Learner(second.named_parameters())
    resumed.load_state_dict(state)
    train(second, resumed, inputs[3:])
    for one, two in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    other = MLP(2, 3, (), 2, layer_norm=False, streams=RandomStreams([1, 2]))
    with pytest.raises(ValueError, match="other parameters"):
        Learner(other.named_parameters()).load_state_dict(state)


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
    learner = Learner(net.named_parameters(), [(target, net)], target_rate=0.3, target_every=3)
    every = Learner(alike.named_parameters(), [(copy.deepcopy(net), alike)], target_rate=0.3)
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
        Learner(net.named_parameters(), target_every=0)
