"""Locks, logs, atomic files, provenance and `run.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import (
    FormatVersionError,
    MixedOriginError,
    ResultsError,
    RunDirectoryLostError,
    RunLockedError,
)
from bench.results import ResultWriter
from bench.storage import (
    PlannedCell,
    RunLock,
    RunRecord,
    atomic_path,
    collect_provenance,
    environment_differences,
    lock_holder,
    log_to,
    package_versions,
    read_json,
    read_log,
    read_run,
    record_data,
    run_directories,
    save_checkpoint,
    simulator_label,
    write_bytes,
    write_json,
    write_run,
)


@contextlib.contextmanager
def other_process(program: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line."""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


HOLD = """
import time
from pathlib import Path
from bench.storage import RunLock
with RunLock(Path({directory!r}), ["bench", "offline", "--suite", "quick run"]):
    {inside}
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with other_process(HOLD.format(directory=str(tmp_path), inside="pass")) as process:
        start = time.monotonic()
        with pytest.raises(RunLockedError) as refusal:
            RunLock(tmp_path).acquire()
        assert time.monotonic() - start < 2
        assert f"process {process.pid} on" in str(refusal.value)
        assert "bench offline --suite 'quick run'" in str(refusal.value)
        assert "--out" in str(refusal.value)
        with pytest.raises(RunLockedError, match=r"or give another folder$"):
            RunLock(tmp_path, alternative="another folder").acquire()
        holder = lock_holder(tmp_path)
        assert holder is not None
        assert holder.pid == process.pid


def test_the_lock_dies_with_its_holder_even_beside_forked_children(tmp_path: Path) -> None:
    # The child (an environment worker, say) outlives the killed parent.
    inside = "import os; child = os.fork(); child or (time.sleep(5), os._exit(0))"
    with other_process(HOLD.format(directory=str(tmp_path), inside=inside)) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        # The child may not have run yet; it lives for five seconds.
        with RunLock(tmp_path, wait=3.0):
            holder = lock_holder(tmp_path)
            assert holder is not None
            assert holder.pid == os.getpid()
    assert lock_holder(tmp_path) is None


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    assert lock_holder(tmp_path / "never") is None
    for _ in range(2):
        with RunLock(tmp_path):
            assert lock_holder(tmp_path) is not None
        assert lock_holder(tmp_path) is None


def test_of_many_processes_exactly_one_gets_the_lock(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from bench.errors import RunLockedError
from bench.storage import RunLock
try:
    with RunLock(Path({str(tmp_path)!r})):
        print("held", flush=True)
        sys.stdin.read()
except RunLockedError:
    print("refused", flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:  # the holder waits for this
        process.communicate()
    assert sorted(answers) == ["held", *["refused"] * 4]


def test_the_log_survives_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    logger = logging.getLogger("bench.test")
    with log_to(path):
        logger.info("evaluated", extra={"fields": {"step": 5, "pack": Path("p")}})
    with path.open("ab") as stream:
        stream.write(b'{"time": "2026-11-21T00:00:00", "mess')
    with log_to(path):
        logger.warning("went on after %s", "a kill")
        try:
            raise ValueError("inner")
        except ValueError:
            logger.exception("failed")
    logger.warning("not in the file")
    records = read_log(path)
    assert [record["message"] for record in records] == [
        "evaluated",
        "went on after a kill",
        "failed",
    ]
    assert records[0]["step"] == 5
    assert records[0]["pack"] == "p"
    assert records[1]["level"] == "WARNING"
    assert "ValueError: inner" in records[2]["exception"]


def test_a_full_log_disk_is_said_once_and_stops_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with log_to(Path("/dev/full")):
        for _ in range(3):
            logging.getLogger("bench.test").info("more")
    errors = capsys.readouterr().err
    assert errors.count("/dev/full is incomplete") == 1
    assert "No space left" in errors
    assert "Traceback" not in errors


def test_atomic_files_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_bytes(path, b"one")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass  # nothing was written to the temporary path
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path) as temporary:
        temporary.write_bytes(b"a directory is in the way")
    assert [entry.name for entry in tmp_path.iterdir()] == ["new"]
    assert path.read_bytes() == b"one"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    assert path.read_bytes() == b"one"


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"λ": [1, 2.5, None]})
    assert read_json(path) == {"λ": [1, 2.5, None]}
    path.write_text('{"half": ')
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        read_json(path)


def test_provenance_is_plain_data_and_compares_with_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state: dict[str, object] = {"commit": "f" * 40, "modified": False}
    monkeypatch.setattr("bench.storage._provenance._git_state", lambda _: dict(state))
    recorded = collect_provenance(["bench", "offline"])
    assert json.loads(json.dumps(recorded)) == recorded
    assert recorded["packages"]["torch"] == package_versions()["torch"]
    assert recorded["hardware"]["cores"] == os.cpu_count()
    assert environment_differences(recorded) == []
    state["modified"] = True
    assert environment_differences(recorded) == ["the source tree here has uncommitted changes"]
    other = recorded | {
        "python": "3.1",
        "packages": recorded["packages"] | {"torch": "0.4"},
        "git": {"commit": "0" * 40, "modified": True},
        "hardware": {"gpu": "Riva 128", "torch_threads": 77},
    }
    text = "\n".join(environment_differences(other))
    for expected in (
        "3.1 there",
        "0.4 there",
        "0" * 40,
        "uncommitted",
        "Riva 128 there",
        "77 there",
    ):
        assert expected in text


def test_a_run_names_its_data_and_goes_on_with_no_others(tmp_path: Path) -> None:
    write_run(tmp_path, record())
    origin = {"fingerprint": "a" * 64, "source": "generated", "folder": "/data"}
    for dataset in ("maze", "cube", "maze"):
        record_data(tmp_path, dataset, origin)
    assert read_run(tmp_path).provenance["data"] == {"maze": origin, "cube": origin}
    elsewhere = origin | {"folder": "/moved"}
    record_data(tmp_path, "maze", elsewhere)  # the same data
    with pytest.raises(MixedOriginError, match=r"maze of fingerprint a{12}, .* /moved have b{12};"):
        record_data(tmp_path, "maze", elsewhere | {"fingerprint": "b" * 64})
    assert read_run(tmp_path).provenance["data"] == {"maze": origin, "cube": origin}


@pytest.mark.parametrize(
    ("mujoco", "ogbench", "label"),
    [
        ("3.3.7", "1.2.1", "mujoco<3.5, ogbench>=1.2"),
        ("3.4.0", "1.2.0", "mujoco<3.5, ogbench>=1.2"),
        ("3.5.0", "1.1.5", "mujoco>=3.5, ogbench<1.2"),
        ("4", "2", "mujoco>=3.5, ogbench>=1.2"),
        (None, "local", "mujoco unknown, ogbench unknown"),
    ],
)
def test_simulator_labels(mujoco: str | None, ogbench: str | None, label: str) -> None:
    assert simulator_label(mujoco, ogbench) == label


def record(**changes: object) -> RunRecord:
    planned = PlannedCell("quick", "maze", "maze-task1", "trqam", 0, {"offline": 100}, "p")
    provenance = {"packages": {"trqam-bench": "9.9.9"}}
    plain = RunRecord(["bench", "offline"], {"lr": 3e-4}, provenance, [planned])
    return dataclasses.replace(plain, **changes)


def test_run_records_come_back(tmp_path: Path) -> None:
    write_run(tmp_path / "b" / "run", record())
    write_run(tmp_path / "a", record())
    assert read_run(tmp_path / "a") == record()
    assert run_directories([tmp_path, tmp_path / "a"]) == [tmp_path / "a", tmp_path / "b" / "run"]


def test_run_records_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"no run .* in"):
        run_directories([tmp_path])
    with pytest.raises(ResultsError, match="not a directory"):
        run_directories([tmp_path / "x"])
    with pytest.raises(ResultsError, match="is no run directory"):
        read_run(tmp_path)
    write_run(tmp_path, record(version=2))
    with pytest.raises(FormatVersionError, match=r"format 2.*up to 1.*9\.9\.9"):
        read_run(tmp_path)
    for content in ("{", "[]", '{"version": 1}', '{"version": 1, "cells": [{"suite": 1}]}'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ResultsError, match=r"run\.json cannot be used"):
            read_run(tmp_path)


@pytest.mark.parametrize("how", ["renamed", "deleted", "replaced"])
def test_a_directory_that_is_lost_while_held_is_not_made_again(tmp_path: Path, how: str) -> None:
    run = tmp_path / "run"
    with RunLock(run):
        write_json(run / "packs" / "a.json", 1)
        if how == "deleted":
            shutil.rmtree(run)
        else:
            run.rename(tmp_path / "elsewhere")
        if how == "replaced":
            run.mkdir()
        for write in (
            lambda: write_json(run / "packs" / "a.json", 2),
            lambda: save_checkpoint(run / "packs" / "checkpoints", 1, {}, {}),
            lambda: ResultWriter(run / "packs" / "evaluations.parquet").flush(),
        ):
            with pytest.raises(RunDirectoryLostError, match="renamed or deleted"):
                write()
        assert not (run / "packs").exists()
        write_json(tmp_path / "beside.json", 1)
    run.mkdir(exist_ok=True)
    write_json(run / "a.json", 3)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "packs" / "p" / "checkpoints").mkdir(parents=True)
    program = f"""
import os, pathlib
from bench.storage import atomic_path
path = pathlib.Path({str(run)!r}) / "packs" / "p" / "evaluations.parquet"
with atomic_path(path) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    (left,) = run.rglob("*.tmp")
    dead = left.name.split("-")[1]
    of_old = run / f".run.json.{dead}-0123abcd.tmp"  # as version 0.1 named them
    of_old.write_text("{")
    folder = run / "packs" / "p" / "checkpoints" / f".step-000000001.{dead}-0123abcd.tmp"
    folder.mkdir()
    (folder / "tensors.safetensors").write_bytes(b"x")
    kept = [run / ".mine.tmp", run / "notes.tmp", run / f".a.{os.getppid()}-0123abcd.tmp"]
    for path in kept:
        path.write_text("mine")
    with RunLock(run), atomic_path(run / "b") as temporary:
        temporary.write_text("b")
        with RunLock(run / "packs"):
            pass
        assert sorted(run.rglob("*.tmp")) == sorted([*kept, temporary])


HOSTILE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [{"pack": "../outside"}]},
        {"cells": [{"variant": "../../x"}]},
        {"cells": [{"task": "a/../../../b"}]},
        {"cells": [{"domain": "/etc/passwd"}]},
        {"cells": [{"agent": HOSTILE}]},
        {"cells": [{"seed": "0"}]},
        {"cells": [{"seed": -1}]},
        {"cells": [{"final_steps": {"later": 3}}]},
        {"cells": [{"final_steps": {"offline": 10**40}}]},
        {"command": ["bench", 3]},
        {"command": "bench"},
        {"settings": {"packs": {"../x": {}}}},
        {"settings": []},
        {"provenance": {"git": {"commit": "HEAD; touch x"}}},
        {"provenance": {"data": {"../x": {"source": "a"}}}},
        {"provenance": {"data": {"x": {"source": 3}}}},
        {"settings": {"packs": {"p": {"dataset": "/etc/passwd"}}}},
        {"settings": {"packs": {"p": {"agent": "my/agents:Mine"}}}},
    ],
)
def test_a_run_record_that_no_run_writes_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    write_run(tmp_path, record())
    document = json.loads((tmp_path / "run.json").read_text())
    for name, value in change.items():
        if name == "cells":
            document["cells"][0] |= value[0]  # type: ignore[index]
        else:
            document[name] = value
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(ResultsError, match=r"run\.json") as caught:
        read_run(tmp_path)
    assert str(caught.value).isprintable()


def test_nothing_that_a_run_records_acts_on_a_terminal(tmp_path: Path) -> None:
    write_run(tmp_path, record(command=["bench", f"--x={HOSTILE}"], settings={HOSTILE: HOSTILE}))
    found = read_run(tmp_path)
    assert found.command == ["bench", r"--x=\x1b]0;owned\x07"]
    assert found.settings == {r"\x1b]0;owned\x07": r"\x1b]0;owned\x07"}
    (tmp_path / "log.jsonl").write_text(json.dumps({"message": HOSTILE}) + "\n")
    assert read_log(tmp_path / "log.jsonl") == [{"message": r"\x1b]0;owned\x07"}]


@pytest.mark.parametrize("kind", ["fifo", "directory", "deep"])
def test_a_record_that_is_no_file_of_a_run_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "run.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("[" * 100_000)
    with pytest.raises(ResultsError, match=r"run\.json cannot be used"):
        read_run(tmp_path)


def test_warnings_reach_the_console_as_well_as_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with log_to(tmp_path / "log.jsonl"):
        logging.getLogger("bench.x").warning("damaged checkpoint %s", HOSTILE)
        logging.getLogger("bench.x").info("fine")
    assert capsys.readouterr().err == "warning: damaged checkpoint \\x1b]0;owned\\x07\n"
    assert [line["level"] for line in read_log(tmp_path / "log.jsonl")] == ["WARNING", "INFO"]
