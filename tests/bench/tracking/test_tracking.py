"""Curves in TensorBoard and Weights & Biases: whole, continued without repeats, off by default."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
    EventAccumulator,
)

from bench.cli import main
from bench.data import generate
from bench.tracking import Curves, TrackedCell, require

CELLS = [TrackedCell(f"maze/task{task}/trqam/seed-0", {"task": task}) for task in (1, 2)]
DOMAIN = "pointmaze-medium-navigate"


def events(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a folder."""
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def sent(run: Path) -> list[dict[str, Any]]:
    """Rows that wandb stored for later sending, in the order of its runs; see `_records`."""
    import wandb.proto.wandb_internal_pb2 as protocol

    rows = []
    for file in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(file.read_bytes()):
            record: Any = protocol.Record()  # type: ignore[attr-defined]
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "history":
                items = {(i.key or i.nested_key[0]): i.value_json for i in record.history.item}
                rows.append({"file": file.name} | {k: json.loads(v) for k, v in items.items()})
    return rows


def _records(data: bytes) -> Iterator[bytes]:
    """Entries of a LevelDB log behind wandb's seven bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_tensorboard_continues_where_training_does(tmp_path: Path) -> None:
    curves = Curves(["tensorboard"], tmp_path, CELLS)
    curves.restart(0)
    for step in (5, 10, 15):
        for cell in (0, 1):
            curves.log(cell, "training", step, {"loss": step + cell})
    # Killed here: nothing was closed. The last checkpoint was that of step 10.
    again = Curves(["tensorboard"], tmp_path, CELLS)
    again.restart(10)
    for step in (15, 20):
        again.log(0, "training", step, {"loss": 100.0 + step})
    again.log(0, "evaluation", 20, {"success_rate": 0.5})
    again.close()
    curves.close()
    first, second = (tmp_path / "tensorboard" / cell.name for cell in CELLS)
    assert events(first, "training/loss") == [(5, 5), (10, 10), (15, 115), (20, 120)]
    assert events(first, "evaluation/success_rate") == [(20, 0.5)]
    assert events(second, "training/loss") == [(5, 6), (10, 11)]


def test_the_online_phase_follows_and_a_finished_run_writes_nothing(tmp_path: Path) -> None:
    def trained(offset: int, begin: int, steps: range) -> None:
        curves = Curves(["tensorboard"], tmp_path, CELLS[:1], offset)
        curves.restart(begin)
        for step in steps:
            curves.log(0, "training", step, {"loss": float(offset + step)})
        curves.close()

    trained(0, 0, range(1, 4))
    trained(3, 0, range(1, 3))
    files = sorted(tmp_path.rglob("*tfevents*"))
    trained(0, 3, range(0))
    trained(3, 2, range(0))
    assert sorted(tmp_path.rglob("*tfevents*")) == files
    shown = events(tmp_path / "tensorboard" / CELLS[0].name, "training/loss")
    assert shown == [(step, float(step)) for step in range(1, 6)]


WANDB = """
import sys
from pathlib import Path
from bench.tracking import Curves, TrackedCell
begin, *steps = map(int, sys.argv[2:])
curves = Curves(["wandb"], Path(sys.argv[1]), [TrackedCell("maze/task1/trqam/seed-0", {"a": 1})])
curves.restart(begin)
for step in steps:
    curves.log(0, "training", step, {"loss": step / 2})
    curves.log(0, "evaluation", step, {"success_rate": step / 100})
if begin == 0:
    import os
    os._exit(9)
curves.close()
"""


def test_wandb_continues_the_same_run_and_loses_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine"}
    # Killed right after it had handed over the last rows, then run again: with nothing to add in
    # the first case, as a run that had just finished.
    for *given, status in ((0, 5, 10, 15, 9), (15, 0), (10, 15, 20, 0)):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", WANDB, str(run), *map(str, given)],
            capture_output=True, text=True, env=environment, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert done.stdout == ""
        if status == 0:
            assert done.stderr == ""
    known = json.loads((run / "wandb" / "maze--task1--trqam--seed-0.json").read_text())
    assert known["shown"] == {"training": 20, "evaluation": 20}
    assert known["pending"] == []
    rows = sent(run)
    assert {row["file"] for row in rows} == {f"run-{known['id']}.wandb"}
    # wandb may have written what the killed process gave it, or not: nothing is missing, and what
    # is there twice is the same.
    training = [(row["step"], row["training/loss"]) for row in rows if "training/loss" in row]
    rates = [row for row in rows if "evaluation/success_rate" in row]
    assert training[-1] == (20, 10.0)
    assert set(training) == {(step, step / 2) for step in (5, 10, 15, 20)}
    assert {(row["step"], row["evaluation/success_rate"]) for row in rates} == {
        (step, step / 100) for step in (5, 10, 15, 20)
    }
    assert len(training) + len(rates) <= 2 * (3 + 4)


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_extra_is_one_clear_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda asked, *rest: None if asked == name else find(asked)
    )
    assert main(["offline", "--track", name, "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f'pip install "trqam-bench[{name}]"' in message
    assert not (tmp_path / "out").exists()


def test_wandb_without_a_login_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    def refused(*, prompt: bool) -> bool:
        raise wandb.Error("the key is too short")

    monkeypatch.setenv("WANDB_MODE", "offline")
    require(["wandb", "tensorboard"])
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda *, prompt: prompt)
    with pytest.raises(ValueError, match=r"`wandb login` first, or set WANDB_MODE=offline"):
        require(["wandb"])
    monkeypatch.setattr(wandb, "login", refused)
    with pytest.raises(ValueError, match="the key is too short; or set"):
        require(["wandb"])


def test_nothing_is_imported_unless_asked_for() -> None:
    program = (
        "import sys, bench.training.job;"
        "assert not {'tensorboard', 'wandb', 'torch.utils.tensorboard'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


INTERRUPTED = """
import sys
from bench.cli import main
from bench.training.trainer import Trainer
advance = Trainer.advance
def interrupted(trainer):
    if trainer.pack.agent == "trqam" and trainer.step == 17:
        raise KeyboardInterrupt
    advance(trainer)
if sys.argv.pop(1) == "interrupted":
    Trainer.advance = interrupted
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_an_interrupted_run_has_the_curves_of_its_tables(tmp_path: Path) -> None:
    generate(f"{DOMAIN}-5k-v0", tmp_path / "data", transitions=5_000, processes=1)
    run = tmp_path / "run"
    command = [
        "offline", "--preset", "smoke", "--tasks", "1", "--out", str(run),
        "--data-dir", str(tmp_path / "data"), "--track", "tensorboard", "wandb",
    ]  # fmt: skip
    environment = os.environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    for how, status in (("interrupted", 130), ("whole", 0), ("whole", 0)):
        done = subprocess.run(
            [sys.executable, "-c", INTERRUPTED, how, *command],
            capture_output=True, text=True, env=environment, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
    (pack,) = run.glob("packs/*--trqam--*")
    cell = f"{DOMAIN}/task1/trqam/seed-0"
    metric = "path_kl"
    table = pl.read_parquet(pack / "training.parquet").filter(metric=metric)
    expected = list(table.select("step", "value").iter_rows())
    assert [step for step, _ in expected] == [5, 10, 15, 20]
    shown = events(run / "tensorboard" / cell, f"training/{metric}")
    assert [step for step, _ in shown] == [5, 10, 15, 20]
    assert [value for _, value in shown] == pytest.approx([value for _, value in expected])
    rates = pl.read_parquet(pack / "evaluations.parquet").select("step", "success_rate")
    assert events(run / "tensorboard" / cell, "evaluation/success_rate") == list(rates.iter_rows())
    known = json.loads((run / "wandb" / f"{cell.replace('/', '--')}.json").read_text())
    rows = [row for row in sent(run) if row["file"] == f"run-{known['id']}.wandb"]
    curve = [
        (row["step"], row[f"training/{metric}"]) for row in rows if f"training/{metric}" in row
    ]
    assert [step for step, _ in curve] == [5, 10, 15, 20]
    assert [value for _, value in curve] == pytest.approx([value for _, value in expected])
