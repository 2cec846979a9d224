"""Whole updates give the same numbers operation by operation, compiled and as one CUDA graph."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast, get_type_hints

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from bench.agents import Agent, Problem
from bench.agents.trqam import TRQAMConfig
from bench.cli._values import kind_of
from bench.experiment import (
    CostRequest,
    Mode,
    OfflineRequest,
    execution_mode,
    is_captured,
    is_compiled,
)
from bench.speed.request import SpeedRequest
from bench.training.capture import CapturedUpdates
from bench.training.compilation import compile_agent, has_compiler
from bench.training.workload import Workload, agent_config
from qlearn import GradientGuard

HIDDEN = (16, 16)
CONFIG = TRQAMConfig(actor_hidden=HIDDEN, critic_hidden=HIDDEN, num_critics=2, flow_steps=2)
BATCH = 8


def workload(device: str, agent: str = "trqam") -> Workload:
    config = CONFIG if agent == "trqam" else agent_config(agent, 16, 2, 2)
    return Workload.build(agent, config, Problem(4, 2, 2), 2, BATCH, torch.device(device))


def updated(
    built: Workload, updates: int
) -> tuple[Mapping[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Metrics of the last update, and everything that later updates depend on."""
    for _ in range(updates):
        metrics = built.update()
    return metrics, built.agent.state_dict(), built.agent.learner.state_dict()


def assert_same_up_to_rounding(mine: Workload, theirs: Workload, updates: tuple[int, int]) -> None:
    for a, b in zip(updated(mine, updates[0]), updated(theirs, updates[1]), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(
    not has_compiler(torch.device("cpu")), reason="torch.compile needs a C++ compiler on a CPU"
)
def test_compiled_updates_are_eager_ones_and_the_next_cell_needs_no_compilation() -> None:
    first, second = workload("cpu"), workload("cpu")
    compile_agent(first.agent)
    assert_same_up_to_rounding(first, workload("cpu"), (3, 3))
    graphs = counters["stats"]["unique_graphs"]
    assert graphs >= 2
    compile_agent(second.agent)
    updated(second, 1)
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.slow
@pytest.mark.skipif(
    not has_compiler(torch.device("cpu")), reason="torch.compile needs a C++ compiler on a CPU"
)
def test_a_job_may_compile_more_agents_than_torch_keeps_by_default() -> None:
    for parameters in range(1, 11):
        held = [torch.ones(2, 3) for _ in range(parameters)]
        learner = SimpleNamespace(
            parameters=held, guard=GradientGuard(held, 1.0, replicas=len(held[0]))
        )
        compile_agent(cast(Agent, SimpleNamespace(losses=lambda: None, learner=learner)))
        norm = learner.guard.forward(held).norm
        torch.testing.assert_close(norm, torch.full((2,), (3.0 * parameters) ** 0.5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("agent", ["trqam", "qam-e", "fql", "rebrac", "rlpd"])
def test_captured_updates_are_eager_ones(agent: str, compiled: bool) -> None:
    device = f"cuda:{torch.cuda.device_count() - 1}"  # not the current one, where there are two
    captured = workload(device, agent)
    if compiled:
        compile_agent(captured.agent)
    launch = CapturedUpdates(captured.update, captured.streams, updates=2)
    for _ in range(launch.eager_calls + 3):
        metrics = launch()
        # As a checkpoint and the run that goes on from it.
        captured.streams.load_state_dict(captured.streams.state_dict())
    eager = workload(device, agent)
    expected, *_ = updated(eager, 2 * (launch.eager_calls + 3))
    for name, value in expected.items():
        torch.testing.assert_close(metrics[name], value, rtol=1e-3, atol=1e-4, msg=name)
    for mine, theirs in zip(
        captured.agent.learner.parameters, eager.agent.learner.parameters, strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_capture_on_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="only CUDA devices capture"):
        workload("cpu").prepared("captured")


@pytest.mark.parametrize(
    ("compiled", "captured", "mode"),
    [
        (False, False, "eager"),
        (True, False, "compiled"),
        (False, True, "captured"),
        (True, True, "compiled+captured"),
    ],
)
def test_one_word_for_every_mode_of_execution(compiled: bool, captured: bool, mode: Mode) -> None:
    """Training, measuring and estimating mean the same by it."""
    request = OfflineRequest(compile=compiled, capture=captured)
    assert execution_mode(compiled=request.compile, captured=request.capture) == mode
    assert is_compiled(mode) is compiled
    assert is_captured(mode) is captured
    for request_type, field in ((SpeedRequest, "modes"), (CostRequest, "mode")):
        assert mode in kind_of(get_type_hints(request_type)[field]).choices
