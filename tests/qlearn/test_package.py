import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from jaxtyping import install_import_hook
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import qlearn

ROOT = Path(qlearn.__file__).parents[2]


def test_every_public_name_is_importable_and_documented() -> None:
    assert len(set(qlearn.__all__)) == len(qlearn.__all__)
    for name in qlearn.__all__:
        value = getattr(qlearn, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def python_blocks(text: str) -> list[str]:
    return [part.split("```", 1)[0] for part in text.split("```python\n")[1:]]


def test_code_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = python_blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(blocks) >= 4
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out


def one_update(package: ModuleType, replicas: int = 2, mode: str = "within_episode") -> Any:
    """Everything of the package in one function of a training loop; built outside of it."""
    q = package
    streams = q.RandomStreams(range(replicas))
    rows = torch.arange(13.0)[:, None]
    data = q.EpisodeData.from_rows(rows.expand(13, 3).clone(), rows, torch.arange(13) == 12)
    offline = q.ChunkSampler(data, 2, 0.9, mode=mode, tasks=[0] * replicas)
    ring = q.RingBuffer(replicas, 6, 3, 1, horizon=2, discount=0.9, mode=mode)
    union = q.UnionSampler(offline, ring)
    critic = q.CriticEnsemble(replicas, 3, 3 + 2, (8,), layer_norm=True, streams=streams)
    actor = q.GaussianActor(replicas, 3, 2, (8,), streams=streams)
    flow = q.FlowActor(replicas, 3, 2, (8,), layer_norm=True, streams=streams)
    value = q.MLP(replicas, 3, (8,), 1, layer_norm=True, streams=streams)
    parameters = [*critic.parameters(), *value.parameters(), *flow.parameters()]
    targets = [p.detach().clone() for p in parameters]
    guard = q.GradientGuard(parameters, 1.0, replicas=replicas)

    def run() -> Any:
        row = torch.zeros(replicas, 3)
        scalar = torch.zeros(replicas)
        ring.add(row, torch.zeros(replicas, 1), scalar, scalar + 1, scalar > 0, row)
        batch = union.sample(streams, 4)
        action, log_prob = actor(batch.next_observations).sample(torch.zeros(replicas, 4, 2))
        next_qs = critic(batch.next_observations, action).detach()
        target = q.td_target(
            batch.rewards, batch.masks, q.pessimistic_value(next_qs, 0.5), discount=0.9, horizon=2
        )
        loss = q.td_loss(critic(batch.observations, batch.actions), target, batch.valid)
        difference = target - value(batch.observations).squeeze(-1)
        loss = loss + q.expectile_loss(difference, 0.9).mean(-1) + 0 * log_prob.mean(-1)
        velocity = flow(batch.observations, batch.actions, batch.valid)
        loss = loss + velocity.square().mean((-2, -1))
        report = guard(torch.autograd.grad(loss.sum(), parameters))
        q.ema_update(targets, parameters, 0.1)
        return report.norm

    return run


@pytest.mark.parametrize("mode", ["any", "within_episode"])
def test_an_update_never_reads_a_tensor_on_the_host(mode: str) -> None:
    run = one_update(qlearn, mode=mode)
    with FakeTensorMode(allow_non_fake_inputs=True):
        with pytest.raises(DataDependentOutputException):
            torch.zeros(1).item()
        run()
        assert run().shape == (2,)


@pytest.fixture
def checked() -> Iterator[ModuleType]:
    """A second copy of the package whose shape annotations are enforced."""
    own = {name: sys.modules.pop(name) for name in list(sys.modules) if in_package(name)}
    try:
        with install_import_hook("qlearn", "beartype.beartype"):
            yield importlib.import_module("qlearn")
    finally:
        for name in filter(in_package, list(sys.modules)):
            del sys.modules[name]
        sys.modules.update(own)


def in_package(name: str) -> bool:
    return name.split(".")[0] == "qlearn"


def test_annotated_shapes_hold_at_run_time(checked: ModuleType) -> None:
    # One test: beartype tells hints by their names, so a third copy would be held to the second.
    for replicas, mode in itertools.product((1, 2), ("any", "within_episode")):
        run = one_update(checked, replicas, mode)
        for _ in range(8):
            assert run().isfinite().all()
    network = checked.MLP(1, 2, (3,), 1, layer_norm=False, streams=checked.RandomStreams([0]))
    network(torch.zeros(4, 5, 1, 3, 2)).sum().backward()
    checked.clip_gradients(network.parameters(), 1.0, replicas=1)
    with pytest.raises(Exception, match="Type-check error"):
        checked.td_target(torch.zeros(2), torch.zeros(3), torch.zeros(2), discount=0.9, horizon=1)


def test_compiled_functions_have_no_graph_breaks_and_agree() -> None:
    streams = qlearn.RandomStreams([0, 1])
    critic = qlearn.CriticEnsemble(2, 3, 5, (8,), layer_norm=True, streams=streams)
    guard = qlearn.GradientGuard(list(critic.parameters()), 0.1, replicas=2)

    def loss(observations: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        qs = critic(observations, actions)
        target = qlearn.pessimistic_value(qs.detach(), 0.5)
        return qlearn.td_loss(qs, target)

    inputs = (torch.randn(2, 4, 3), torch.randn(2, 4, 2))
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), loss(*inputs))
    gradients = torch.autograd.grad(loss(*inputs).sum(), list(critic.parameters()))
    clip = torch.compile(lambda *g: guard(g).gradients, backend="aot_eager", fullgraph=True)
    for mine, theirs in zip(clip(*gradients), guard(gradients).gradients, strict=True):
        torch.testing.assert_close(mine, theirs)
