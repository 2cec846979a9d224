"""What a run directory says is checked before anything is made of it."""

import json
from pathlib import Path

import pytest

from bench.agents import AGENTS
from bench.errors import ResultsError
from bench.experiment import OfflineRequest
from bench.recorded import recorded
from bench.storage import require_name
from bench.suites import SUITES
from bench.training.domain_record import DomainRecord
from bench.training.options import plan_offline
from bench.training.run_record import record_plan
from bench.training.settings import resolve
from bench.training.stored import require_trusted, stored_config

PLACE = Path("run")


@pytest.mark.parametrize("agent", list(AGENTS))
def test_settings_come_back_from_json(agent: str) -> None:
    for suite in SUITES.values():
        for domain in suite.domains:
            config = resolve(AGENTS[agent].config, agent, domain, {})
            stored = json.loads(json.dumps(recorded(config))) | {"of_another_version": 1}
            assert stored_config(agent, stored, PLACE) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("actor_hidden", [10**12]),
        ("actor_hidden", [64] * 10_000),
        ("actor_hidden", [64, "64"]),
        ("actor_hidden", 64),
        ("critics", 10**9),
        ("critics", 2.5),
        ("critics", True),
        ("flow_steps", 0),
        ("discount", 1.5),
        ("discount", float("nan")),
        ("discount", "0.99"),
        ("dual", "../x"),
        ("clip_terminal", 1),
        ("max_gradient_norm", -1.0),
    ],
)
def test_settings_that_no_run_has_are_refused(name: str, value: object) -> None:
    with pytest.raises(ResultsError, match=f"run has {name}=.* out of range"):
        stored_config("trqam", {name: value}, PLACE)


def test_trained_packs_without_their_run_record_are_not_taken_over(tmp_path: Path) -> None:
    run = tmp_path / "run"
    plan = plan_offline(OfflineRequest(suite="quick", preset="smoke", out=run))
    record_plan(plan, ["bench"])
    (run / "run.json").unlink()
    record_plan(plan, ["bench"])  # nothing has been trained yet
    step = run / "packs" / "p" / "checkpoints" / "step-000000001"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    (run / "run.json").unlink()
    with pytest.raises(ValueError, match=r"holds trained runs but no run\.json"):
        record_plan(plan, ["bench"])
    assert not (run / "run.json").exists()


def test_an_unknown_agent_and_no_settings_are_refused() -> None:
    with pytest.raises(ResultsError, match="agent 'other', which is not installed"):
        stored_config("other", {}, PLACE)
    with pytest.raises(ResultsError, match="invalid settings"):
        stored_config("trqam", ["x"], PLACE)


def test_a_run_directory_alone_is_no_reason_to_import_a_module() -> None:
    require_trusted("cube-single-play-singletask-task1-v0", None, PLACE)
    require_trusted("mine:Foo-v0", "mine:Foo-v0", PLACE)
    with pytest.raises(ValueError, match=r"runs\.evil.*imported.*add --env runs\.evil"):
        require_trusted("runs.evil:Foo-v0", None, PLACE)
    with pytest.raises(ValueError, match="is not the environment of run"):
        require_trusted("runs.evil:Foo-v0", "mine:Foo-v0", PLACE)


def test_an_agent_of_the_users_is_imported_only_at_their_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs_evil.py").write_text("raise RuntimeError('imported')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'runs_evil' is imported.*add --agent runs_evil:Agent"):
        stored_config("runs_evil:Agent", {}, PLACE)
    with pytest.raises(RuntimeError, match="imported"):
        AGENTS.get("runs_evil:Agent")
    assert require_name("agent", "my.agents:Mine", PLACE) == "my.agents:Mine"
    for name in ("../x", "my/agents:Mine", ":Mine", "a:b:c", "my.agents:../x"):
        with pytest.raises(ValueError, match="no agent name"):
            require_name("agent", name, PLACE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("environment", "../x"),
        ("observation_dim", 10**30),
        ("observation_dim", 3),
        ("action_dim", 2.0),
        ("horizon", 10**9),
        ("shift", [0.0]),
        ("shift", [0.0, float("inf")]),
        ("scale", [0.0, 1.0]),
        ("scale", "ab"),
        ("action_low", [0.0] * 7),
    ],
)
def test_a_domain_record_that_no_run_writes_is_refused(
    tmp_path: Path, name: str, value: object
) -> None:
    record = DomainRecord("a-v0", 2, 2, 5, (0.0, 0.0), (1.0, 1.0), (), ())
    record.keep(tmp_path, "d")
    assert DomainRecord.read(tmp_path, "d") == record
    path = DomainRecord.path(tmp_path, "d")
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(ResultsError, match=r"d\.json cannot be used"):
        DomainRecord.read(tmp_path, "d")
    with pytest.raises(ValueError, match="no domain name"):
        DomainRecord.path(tmp_path, "../outside")
