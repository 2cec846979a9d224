"""The parser: what may be typed, and what is said to what may not; and the boundary of errors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.cli._commands import command_of, leaves
from bench.cli._options import options_of
from bench.cli.offline import Offline
from bench.errors import BenchError, logged_in
from bench.storage import log_to


def offline(*arguments: str) -> Any:
    return command_of(["offline", *arguments])


def test_values_may_be_typed_as_people_type_them() -> None:
    for steps in ("1e3", "1000", "1_000", "1E+3", "1000.0"):
        assert offline("--steps", steps).steps == 1000
    for agents in (["trqam", "qam"], ["trqam,qam"], ["trqam", "--agent=qam"]):
        assert offline("--agent", *agents).agent == ("trqam", "qam")
    assert offline("--tasks", "1,2", "3").tasks == (1, 2, 3)
    assert offline("--set", "actor_hidden=64,64", "num_critics=2").set == (
        "actor_hidden=64,64",
        "num_critics=2",
    )
    assert offline("--first-seed", "-1").first_seed == -1
    assert offline("--first_seed=7", "--dry-run", "--no-compile").first_seed == 7
    assert offline("--pack", "auto").pack == "auto"
    assert offline("--pack", "2").pack == 2
    assert offline() == Offline()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "bench needs a command: offline, online"),
        (["offlin"], "bench has no command 'offlin'; perhaps you meant bench offline or"),
        (["data", "lis"], "bench data has no command 'lis'; perhaps you meant bench data list;"),
        (["ablate"], "bench ablate needs a command: dual,"),
        (["offline", "--stepz", "3"], "bench offline has no option --stepz; perhaps you meant"),
        (["offline", "trqam"], "bench offline does not take 'trqam'"),
        (["offline", "--steps", "1.5"], "--steps must be a whole number, got '1.5'"),
        (["offline", "--steps", "1,000"], "got '1,000'; write 1000"),
        (["offline", "--steps", "None"], "--steps must be a whole number, got 'None'"),
        (["offline", "--steps", "1" * 23], "--steps must be a whole number of at most 18 digits"),
        (["offline", "--kl-budget", "9" * 23], "--kl-budget must be a number of at most 18 digits"),
        (["offline", "--steps", "1e999"], "--steps must be a whole number of at most 18 digits"),
        (["offline", "--steps", "inf"], "--steps must be a whole number, got 'inf'"),
        (["offline", "--pack", "auot"], "--pack must be a whole number or auto, got 'auot'"),
        (["offline", "--kl-budget", "nan"], "--kl-budget must be a finite number, got 'nan'"),
        (["offline", "--precision", "bf16"], "got 'bf16'; perhaps you meant bfloat16"),
        (["offline", "--suite", "None"], "unknown suite 'None'"),
        (["offline", "--out", ""], "--out was given an empty value"),
        (["offline", "--out="], "--out was given an empty value"),
        (["offline", "--agent", "trqam,"], "--agent was given an empty value"),
        (["offline", "--compile=yes"], "--compile takes no value, got 'yes'"),
        (["offline", "--tasks", "1;2"], "--tasks must be a whole number, got '1;2'"),
        (["offline", "--track", "wandd"], "--track must be tensorboard or wandb, got 'wandd'"),
        (["compare", "a"], "bench compare needs SECOND"),
        (["compare", "a", "b", "c"], "bench compare does not take 'c': it takes FIRST SECOND;"),
        (["export"], "bench export needs RUN;"),
        (["data", "import", "a", "b", "--action-range", "1"], "--action-range takes 2 values"),
    ],
)
def test_what_cannot_be_meant_is_said_in_words(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert expected in message


def test_every_command_explains_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    for prog, kind in leaves().items():
        assert main([*prog.split()[1:], "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: {prog} ")
        assert "{None}" not in text
        for option in options_of(kind):
            assert option.positional or option.flag in text
    for arguments in (["--help"], ["data", "-h"], ["ablate", "--help"]):
        assert main(arguments) == 0
        assert "COMMAND --help" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bench 0.")


class PanicException(BaseException):
    """As polars names its own."""


@pytest.mark.parametrize(
    ("error", "status", "expected", "kept"),
    [
        (MemoryError("cannot allocate 9 GB"), 1, "there is not enough memory (cannot", True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory", True),
        (RecursionError("maximum depth"), 1, "nested too deeply", True),
        (ImportError("DLL load failed"), 1, "a module cannot be imported: DLL", True),
        (ModuleNotFoundError("x", name="absent"), 1, "there is no module 'absent'", True),
        (PanicException("index out of\nbounds"), 1, "polars gave up on a table: index out", True),
        (AttributeError("no attribute 'x'"), 1, "unexpected AttributeError in test_comm", True),
        (TypeError("bad\nthing"), 1, "unexpected TypeError in test_command_line.py, line", True),
        (KeyError("x"), 1, "unexpected KeyError", True),
        (BenchError("do this"), 1, "do this", False),
        (FileNotFoundError(2, "No such file", "x"), 1, "x: no such file", False),
    ],
)
def test_whatever_fails_is_one_line(
    error: BaseException,
    status: int,
    expected: str,
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(self: Offline) -> int:
        raise error

    monkeypatch.setattr(Offline, "run", failing)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["offline"]) == status
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert expected in message
    files = list(tmp_path.iterdir())
    assert len(files) == kept
    if kept:
        assert f"(traceback: {files[0]})" in message
        assert "Traceback (most recent call last)" in files[0].read_text()
    assert main(["offline", "--debug"]) == status
    assert capsys.readouterr().err.startswith("Traceback")


def test_interruptions_end_with_their_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Offline) -> int:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise ImportError("numpy could not be imported")  # noqa: B904 - as libraries do

    monkeypatch.setattr(Offline, "run", interrupted)
    assert main(["offline"]) == 130
    assert capsys.readouterr().err.startswith("interrupted; rerun the command to resume")


def test_the_log_of_a_run_holds_the_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(TypeError) as caught, log_to(log):
        raise TypeError("unforeseen")
    assert logged_in(caught.value) == log
    (record,) = map(json.loads, log.read_text().splitlines())
    assert record["level"] == "ERROR"
    assert "Traceback (most recent call last)" in record["exception"]


@pytest.mark.parametrize(("place", "status"), [("/dev/full", 1), (None, 1)])
def test_output_that_cannot_be_written_is_no_traceback(place: str | None, status: int) -> None:
    """A full disk, and a reader that has gone, as behind `| head`."""
    program = "import sys; from bench.cli import main; sys.exit(main(['agents']))"
    if place is None:
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(place, os.O_WRONLY)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.stderr.startswith("error: ") == (place is not None)
