"""What a fine-tuned policy is held to: a moving average, itself as it was, or without adapters."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.agents import OwnPolicy, Problem
from trustregion import RelativeDualDescent

from .small_agents import PROBLEM, build, played, train


class Layer(nn.Module):
    """A frozen layer and a trained correction of low rank, with the switches of peft's."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(size, out), nn.Linear(size, 2), nn.Linear(2, out)
        self.base.requires_grad_(False)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.disable_adapters = False

    def enable_adapters(self, enabled: bool) -> None:
        self.disable_adapters = not enabled
        for part in (self.down, self.up):
            part.requires_grad_(enabled)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        return out if self.disable_adapters else out + self.up(self.down(x))


class Adapted(nn.Module):
    """A frozen velocity model with adapters in its encoder and in its head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.head = Layer(5, 8), Layer(8 + 7, 6)

    def encode(self, observations: Tensor) -> Tensor:
        out: Tensor = self.encoder(observations)
        return out.tanh()

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([context, x.flatten(1), t[:, None]], -1))
        return out.reshape(x.shape)


def own(module: nn.Module) -> Problem:
    return Problem(
        PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.horizon,
        policy=OwnPolicy.copies_of(module),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["trqam", "qam", "sqam"])
def test_without_adapters_is_the_frozen_policy_without_a_second_copy(name: str) -> None:
    frozen, off = (
        build(name, [3], own(Adapted()), reference=kind) for kind in ("frozen", "adapters_off")
    )
    off.load_state_dict({n: v for n, v in frozen.state_dict().items() if n in off.state_dict()})
    start = copy.deepcopy(frozen.fast.state_dict())
    expected, found = train(frozen, [4], 4), train(off, [4], 4)
    assert "flow_loss" not in expected
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(played(off, [4]), played(frozen, [4]), rtol=1e-4, atol=1e-6)
    assert not off.fast.module.head.disable_adapters
    copies = [sum(n.startswith(f"{part}.module") for n in off.state_dict())
              for part in ("slow", "target_slow", "fast")]  # fmt: skip
    assert copies == [0, 0, len(start)]
    for key, value in frozen.target_slow.state_dict().items():
        assert torch.equal(value, start[key])
    assert float(expected["path_kl"]) > 0.0 if "path_kl" in expected else True
    trained = {n.split(".")[3] for n in off.learner.names if n.startswith("fast")}
    assert trained == {"down", "up"}


@pytest.mark.parametrize("name", ["trqam", "qam"])
def test_a_frozen_reference_of_the_perceptron_takes_a_clone(name: str) -> None:
    agent, clone = build(name, [3, 4], reference="frozen"), build(name, [5, 6]).slow
    agent.start_from(clone)
    train(agent, [1, 2], 3)
    for key, value in clone.state_dict().items():
        assert torch.equal(agent.target_slow.state_dict()[key], value)
        assert not torch.equal(agent.fast.state_dict()[key], value)
    assert not any(n.startswith("slow") for n in agent.learner.names)


@pytest.mark.parametrize(
    ("module", "says"),
    [(None, "is for a policy of your own"), (nn.Linear(1, 1), "has no adapters")],
)
def test_adapters_off_needs_adapters(module: Any, says: str) -> None:
    problem = PROBLEM if module is None else own(module)
    with pytest.raises(ValueError, match=says):
        build("trqam", [0], problem, reference="adapters_off")


def test_the_relative_dual_is_a_setting() -> None:
    agent = build("trqam", [0, 1], dual="relative", dual_rate=0.02, dual_clip=10.0, kl_budget=0.01)
    assert isinstance(agent.dual, RelativeDualDescent)
    metrics = train(agent, [0, 1], 3)
    assert metrics["kl_budget"].tolist() == pytest.approx([0.01, 0.01])
    assert agent.dual.known.tolist() == [3, 3]
