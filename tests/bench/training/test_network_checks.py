"""What is wrong with a user's policy is said before it is trained, one clear error each."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.agents import AGENTS, OwnPolicy, Problem
from bench.agents.critics import OwnCritic
from bench.training.network_checks import check_networks
from bench.training.own_policy import networks_of
from qlearn import ChunkBatch, RandomStreams

H, A, SIZE = 3, 2, 5


class Model(nn.Module):
    """A sound velocity model, and a place for one fault."""

    def __init__(self, fault: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.fault = fault
        self.layer = nn.Linear(SIZE + H * A + 1, H * A)
        self.norm = nn.BatchNorm1d(H * A, track_running_stats=False)

    def forward(self, observations: Tensor, x: Tensor, t: Tensor) -> Any:
        v = self.layer(torch.cat([observations, x.flatten(1), t[:, None]], -1)).reshape(x.shape)
        return v if self.fault is None else self.fault(self, v, observations, x, t)


class Rows:
    """Made-up rows of data."""

    def __init__(self, observations: Callable[[Tensor], Tensor] = lambda o: o) -> None:
        self.observations = observations

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        observations = self.observations(streams.normal(batch, SIZE))
        ones = streams.normal(batch) * 0 + 1
        actions = streams.uniform(batch, H * A)
        return ChunkBatch(observations, actions, ones, ones, ones, observations)


def checked(
    module: nn.Module,
    rows: Rows | None = None,
    name: str = "bc",
    critic: Callable[[], nn.Module] | None = None,
    policy: Callable[[], nn.Module] | None = None,
) -> None:
    own = OwnPolicy.copies_of(module) if policy is None else OwnPolicy(policy)
    judge = None if critic is None else OwnCritic(critic)
    problem = Problem(SIZE, A, H, policy=own, critic=judge)
    streams = RandomStreams([0])
    config = AGENTS[name].config(actor_hidden=(8,))
    agent = AGENTS[name].agent(config, problem, streams)
    before = streams.state_dict()["generators"].clone()
    check_networks("Model", agent, problem, rows or Rows(), streams)
    assert torch.equal(streams.state_dict()["generators"], before)


def test_a_sound_model_passes_and_moves_nothing() -> None:
    checked(Model())
    zero = Model()
    nn.init.zeros_(zero.layer.weight)
    nn.init.zeros_(zero.layer.bias)
    checked(zero)  # as many models begin


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda m, v, o, x, t: v.flatten(1), r"returns shape \(8, 6\) for actions of shape"),
        (lambda m, v, o, x, t: v[:, :2], r"\(8, 2, 2\).*is the chunk length 3\?"),
        (lambda m, v, o, x, t: v.double(), r"returns torch.float64.*v.to\(x.dtype\)"),
        (lambda m, v, o, x, t: {"v": v}, "returns dict, expected a tensor of velocities"),
        (lambda m, v, o, x, t: m(o, x, t * 0) if t.any() else v, "ignores the time"),
        (lambda m, v, o, x, t: v.detach(), "detaches its velocities"),
        (lambda m, v, o, x, t: v * torch.tensor(float("nan")), "not finite on the first batch"),
        (lambda m, v, o, x, t: v / (o[:, :1, None] > 0), r"not finite on .*\(rows \["),
        (
            lambda m, v, o, x, t: nn.functional.dropout(v, training=True),
            "answers the same question differently: a dropout",
        ),
        (lambda m, v, o, x, t: v - v.mean(0), "mixes the rows of a batch"),
        (
            lambda m, v, o, x, t: m.norm(v.flatten(1)).reshape(x.shape) if len(x) > 1 else v,
            "mixes the rows of a batch",
        ),
        (
            lambda m, v, o, x, t: m.layer(o),
            r"cannot be asked about the data: RuntimeError.*observations float32\[5\].*\[8, 3, 2\]",
        ),
        (lambda m, v, o, x, t: o["image"], "cannot be asked about the data: IndexError|TypeError"),
    ],
)
def test_a_faulty_model_is_refused(fault: Callable[..., Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        checked(Model(fault))


def test_data_that_no_model_can_read_are_refused() -> None:
    def image(o: Tensor) -> Tensor:
        return o[..., None, None].expand(*o.shape, 4, 4) * 100

    with pytest.raises(ValueError, match=r"look like images.*store images as uint8"):
        checked(Model(), Rows(image))
    with pytest.raises(ValueError, match="observations of the data are not finite"):
        checked(Model(), Rows(lambda o: o / 0))


def test_policies_that_share_a_parameter_are_refused() -> None:
    shared = nn.Linear(1, 1)

    class Sharing(Model):
        def __init__(self) -> None:
            super().__init__()
            self.shared = shared

        def __deepcopy__(self, memo: dict[int, Any]) -> "Sharing":
            return Sharing()

    with pytest.raises(ValueError, match=r"share the parameter shared.weight of Model"):
        checked(Sharing(), name="trqam")


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (lambda: Model().requires_grad_(False), "nothing to train: none of its 90 parameters"),
        (lambda: nn.ModuleList([]), "has nothing to train|neither velocity nor forward"),
        (lambda: Model().bfloat16(), "layer.weight is trained in torch.bfloat16"),
        (lambda: 3, "got int as a policy"),
        (lambda: "nowhere", "must name a function that makes the policy, as module:function"),
        (lambda: "torch:nothing", "has no 'nothing'"),
        (lambda: "math:pi", "is float; expected a function"),
    ],
)
def test_what_is_no_trainable_policy_is_refused_at_once(policy: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        networks_of(policy())


def test_what_cannot_be_copied_is_refused() -> None:
    locked, bound = Model(), Model()
    locked.lock = threading.Lock()
    bound.last = bound.layer.weight * 2
    for module in (locked, bound):
        for given in (module, lambda module=module: module):
            with pytest.raises(ValueError, match="policy Model cannot be copied"):
                networks_of(given)
        with pytest.raises(ValueError, match="critic Model cannot be copied"):
            networks_of(Model(), critic=module)


class Critic(nn.Module):
    """A sound critic, and a place for one fault."""

    def __init__(self, fault: Callable[..., Any] = lambda c, v, o, a: v) -> None:
        super().__init__()
        self.fault, self.layer = fault, nn.Linear(SIZE + H * A, 1)

    def forward(self, observations: Tensor, actions: Tensor) -> Any:
        value = self.layer(torch.cat([observations, actions.flatten(1)], -1))[:, 0]
        return self.fault(self, value, observations, actions)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda c, v, o, a: v.mean(), r"critic Critic returned shape \(\) for 8 observations"),
        (lambda c, v, o, a: v * torch.nan, "critic Critic gives values that are not finite"),
        (lambda c, v, o, a: v.detach(), "values without a gradient in the actions"),
        (lambda c, v, o, a: c(o, 0 * a.detach()), "values without a gradient in the actions"),
    ],
)
def test_a_faulty_critic_is_refused(fault: Callable[..., Any], says: str) -> None:
    once = [fault]  # a fault may ask the critic itself
    critic = Critic(lambda c, v, o, a: once.pop()(c, v, o, a) if once else v)
    with pytest.raises(ValueError, match=says):
        checked(Model(), name="trqam", critic=lambda: critic)


def test_a_critic_that_shares_with_the_policy_is_refused() -> None:
    checked(Model(), name="trqam", critic=Critic)
    model, critic = Model(), Critic()
    critic.encoder = model.layer
    with pytest.raises(ValueError, match=r"slow and critic share the parameter encoder.weight"):
        checked(model, name="trqam", critic=lambda: critic, policy=lambda: model)


def test_a_fingerprint_is_of_values_types_and_what_is_trained() -> None:
    def of(change: Callable[[Model], object]) -> str:
        torch.manual_seed(0)
        model = Model()
        change(model)
        return networks_of(model).record.sha256

    same = of(lambda m: None)
    assert of(lambda m: None) == same
    assert of(lambda m: m.double()) != same
    assert of(lambda m: m.layer.requires_grad_(False)) != same
    assert of(lambda m: m.layer.weight.data.mul_(1.001)) != same
