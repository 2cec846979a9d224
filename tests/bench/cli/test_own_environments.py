"""What users' own environments are like: it works, or is said before anything is trained."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bench.cli import main
from bench.experiment import OfflineRequest, OnlineRequest
from bench.simulation import SimulatorPool
from bench.training.online_options import plan_online
from bench.training.options import plan_offline

LENGTH = 20  # as in own_environments, which environments are found in by its bare name


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    # Evaluations in this process, where their numbers are the same; rehearsals have one of theirs.
    monkeypatch.setattr(
        "bench.training.job.SimulatorPool", lambda workers, limits: SimulatorPool(0, limits=limits)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draws, episodes = np.random.default_rng(0), 6
    rows = episodes * (LENGTH + 1)
    ends = np.arange(rows) % (LENGTH + 1) == LENGTH
    file = tmp_path_factory.mktemp("data") / "reach.npz"
    np.savez(
        file,
        observations=np.stack([draws.uniform(-1, 1, rows), np.ones(rows)], 1).astype(np.float32),
        actions=draws.uniform(-1, 1, (rows, 1)).astype(np.float32),
        rewards=np.zeros(rows, np.float32),
        terminals=ends.astype(np.float32),
    )
    return file


def given(data: Path, kind: str, out: Path) -> dict[str, Any]:
    environment = f"own_environments:{kind}-v0"
    return {
        "dataset": str(data), "env": environment, "preset": "smoke", "out": out, "processes": 1,
        "env_timeout": 60.0,
    }  # fmt: skip


def request(data: Path, kind: str, out: Path) -> OfflineRequest:
    return OfflineRequest(**given(data, kind, out))


def online(data: Path, kind: str, out: Path) -> OnlineRequest:
    return OnlineRequest(**given(data, kind, out))


def words(data: Path, kind: str, out: Path) -> list[str]:
    options = ["--dataset", str(data), "--env", f"own_environments:{kind}-v0", "--out", str(out)]
    return ["offline", *options, "--preset", "smoke", "--processes", "1", "--env-timeout", "60"]


def test_whole_numbers_are_observations_and_success_may_not_be_said(
    data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert main(words(data, "Whole", out)) == 0
    (table,) = out.glob("packs/*--trqam--*/evaluations.parquet")
    rows = pl.read_parquet(table)
    # None in info["success"] is no word: the threshold of 5 decides.
    assert rows["return_mean"].is_between(0.0, LENGTH).all()
    assert rows["length_mean"].unique().to_list() == [LENGTH]


def test_what_an_environment_cannot_do_is_said_first(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"unbounded actions.*TransformAction\(env, lambda action"):
        plan_offline(request(data, "Unbounded", out))
    plan_online(online(data, "Advised", out))  # the advice works
    plan_offline(request(data, "Locked", out))  # nothing is stored there
    with pytest.raises(ValueError, match="'own_environments:Locked-v0' cannot be part of a check"):
        plan_online(online(data, "Locked", out))
    assert not out.exists()


def test_a_reward_that_turns_out_not_finite_is_a_failed_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert main(words(data, "Late", out)) == 1
    (table,) = out.glob("packs/*--trqam--*/evaluations.parquet")
    reasons = pl.read_parquet(table)["failure"].drop_nulls().to_list()
    assert reasons
    for reason in reasons:
        assert "own_environments:Late-v0" in reason
        assert "the environment returned a reward that is not finite in float32: nan" in reason
    assert "nan" not in capsys.readouterr().out.replace("float32: nan", "")
