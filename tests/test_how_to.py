"""The how-to pages' code runs as a reader would use it: saved as a module, given by its name."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.agents import AGENTS, AgentEntry, Problem
from bench.cli import main
from bench.extensions import installed
from bench.suites import suite
from bench.training.cost import rehearse

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with the pages' modules, of which nothing stays imported."""
    (tmp_path / "my_agents.py").write_text(blocks("own-agent.md", "python")[0])
    (tmp_path / "my_suites.py").write_text(blocks("own-suite.md", "python")[0])
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("my_agents", "my_suites"):
        sys.modules.pop(name, None)
    AGENTS._found.clear()
    installed.cache_clear()


def register(folder: Path, *lines: str) -> None:
    """Install a distribution whose entry points are these."""
    info = folder / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    sys.path.insert(0, str(folder))
    installed.cache_clear()


def test_an_agent_by_reference_and_by_entry_point(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = AGENTS["my_agents:Regression"]
    assert entry.summary == "Behaviour cloning of a deterministic policy by least squares"
    assert not entry.pretrained
    assert entry.exportable
    assert entry.settings == {"actor_hidden", "learning_rate", "max_gradient_norm"}
    assert "my_agents:Regression" not in list(AGENTS)
    rehearse("my_agents:Regression", entry.config((8,)), Problem(4, 2, 3))
    assert main(["agents", "my_agents:Regression"]) == 0
    assert "Adam's step size" in capsys.readouterr().out

    toml = blocks("own-agent.md", "toml")[0]
    name, _, reference = toml.splitlines()[1].partition(" = ")
    register(folder, "[trqam.agents]", f"{name} = {reference.strip(chr(34))}", "broken = nothing:X")
    assert AGENTS[name].agent is entry.agent
    assert {name, "trqam"} <= set(AGENTS)
    with pytest.raises(ValueError, match=r"'broken' of the package mine .* cannot be loaded"):
        AGENTS["broken"]
    assert AgentEntry.of("x", entry) is entry


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("", "nowhere:X", "the module 'nowhere' cannot be imported"),
        ("", "faulty:X", "has no 'X'"),
        ("X = 3", "faulty:X", "is int 3; expected a class of agents"),
        ("class X: ...", "faulty:X", "has no method noise, update, acting_noise, act"),
        (
            "from my_agents import Regression\n"
            "class X(Regression):\n    def __init__(self, config, problem, streams): ...",
            "faulty:X",
            "annotate the first argument of its __init__, config",
        ),
        (
            "from my_agents import Regression\n"
            "class X(Regression):\n    def start_from(self, flow): ...",
            "faulty:X",
            "RegressionConfig has no actor_layer_norm",
        ),
    ],
)
def test_what_is_no_agent_is_refused(folder: Path, text: str, name: str, complaint: str) -> None:
    (folder / "faulty.py").write_text(text)
    try:
        with pytest.raises(ValueError, match=re.escape(complaint)):
            bench.offline(suite="quick", preset="smoke", agent=name)
    finally:
        sys.modules.pop("faulty", None)
    with pytest.raises(ValueError, match="perhaps you meant trqam"):
        bench.offline(suite="quick", agent="trqm")


def test_a_suite_by_reference_and_by_entry_point(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mazes = suite("my_suites:MAZES")
    assert mazes.name == "mazes"
    assert suite("my_suites:LONGER").protocol.offline_steps == 20_000
    with pytest.raises(ValueError, match=r"expected a bench\.suites\.Suite"):
        suite("my_suites:Domain")
    toml = blocks("own-suite.md", "toml")[0]
    name, _, reference = toml.splitlines()[1].partition(" = ")
    register(folder, "[trqam.suites]", f"{name} = {reference.strip(chr(34))}")
    assert suite("mazes") is mazes
    with pytest.raises(ValueError, match="perhaps you meant mazes"):
        suite("maze")


@pytest.mark.slow
def test_an_agent_and_a_suite_of_ones_own_train_in_worker_processes(folder: Path) -> None:
    result = bench.offline(
        suite="my_suites:MAZES",
        agent="my_agents:Regression",
        preset="smoke",
        processes=2,
        tasks=1,
        device="cpu",
        data_dir=folder / "data",
        out=folder / "runs/mazes",
        progress="none",
    )
    assert result.complete
    assert set(result.cells["agent"]) == {"bc", "my_agents:Regression"}
    assert "regression_loss" in result.metrics["metric"].to_list()
    policy = bench.load_policy(result.directory, task=1)
    chunk = policy(np.zeros(policy.observation_dim))
    assert chunk.shape == (5, 2)
    packs = {path.name for path in (result.directory / "packs").iterdir()}
    assert any("my_agents.Regression" in name for name in packs)
    exported = bench.export_policy(result.directory, task=1, formats=["pt2"])
    assert exported.files["pt2"].is_file()
