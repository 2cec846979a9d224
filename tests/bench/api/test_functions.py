"""`import bench`: names, requests from keyword arguments, errors, progress."""

import logging
import re
from dataclasses import fields
from pathlib import Path

import pytest
from rich.console import Console

import bench
from bench.api.progress import progress_console
from bench.cli import main
from bench.experiment import (
    OfflineRequest,
    OnlineRequest,
    SweepRequest,
    build_request,
    command_line,
)


def test_every_public_name_is_there_and_documented() -> None:
    for name in bench.__all__:
        assert getattr(bench, name).__doc__, name
    assert set(bench.__all__) <= set(dir(bench))
    assert bench.data.__name__ == "bench.data"
    with pytest.raises(AttributeError, match="no attribute 'ofline'"):
        bench.ofline  # noqa: B018


def test_keyword_arguments_have_the_names_of_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    for name, kind in (("offline", OfflineRequest), ("online", OnlineRequest)):
        assert main([name, "--help"]) == 0
        flags = set(re.findall(r"(?m)^\W*--([a-z][a-z-]+)", capsys.readouterr().out))
        mine = {field.name.replace("_", "-") for field in fields(kind)}
        assert flags - {"dry-run", "measure", "debug", "help"} == mine


def test_one_value_or_any_sequence_and_paths_as_text() -> None:
    for given in ("qam", ["qam"], ("qam",)):
        assert build_request(OfflineRequest, None, {"agent": given}).agent == ("qam",)
    request = build_request(
        OfflineRequest, None, {"tasks": range(1, 3), "out": "runs/a", "data_dir": None, "seeds": 2}
    )
    assert request == OfflineRequest(tasks=(1, 2), out=Path("runs/a"), seeds=2)
    assert build_request(OfflineRequest, request, {}) is request


def test_what_is_no_option_is_refused_before_anything_runs() -> None:
    with pytest.raises(TypeError, match="no field 'agents'; perhaps you meant agent"):
        bench.offline(agents="trqam")
    with pytest.raises(TypeError, match="not both"):
        bench.offline(OfflineRequest(), seeds=2)
    with pytest.raises(TypeError, match="expected a SweepRequest, got OfflineRequest"):
        bench.sweep(OfflineRequest())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="quik"):
        bench.offline(suite="quik")
    with pytest.raises(ValueError, match="--over kl-budget"):
        bench.sweep(suite="quick")
    with pytest.raises(ValueError, match="kernels, sqam, sensitivity, data; got 'kernel'"):
        bench.ablate("kernel")  # type: ignore[arg-type]
    with pytest.raises(bench.BenchError):
        bench.report("there/is/none")
    with pytest.raises(ValueError, match="at least one run"):
        bench.report([])
    with pytest.raises(ValueError, match="devices must be at least 1"):
        bench.plan(devices=0)
    with pytest.raises(ValueError, match="progress must be"):
        bench.offline(suite="quick", progress="bar")  # type: ignore[arg-type]


def test_a_request_as_a_command_line() -> None:
    assert command_line(["bench", "offline"], OfflineRequest()) == ["bench", "offline"]
    request = SweepRequest(
        suite="quick",
        agent=("trqam", "qam"),
        seeds=3,
        compile=True,
        out=Path("a b"),
        over=("kl-budget=1,2", "steps=5,6"),
    )
    words = command_line(["bench", "sweep"], request, repeated=["over"])
    assert words == [
        "bench", "sweep", "--suite", "quick", "--seeds", "3", "--agent", "trqam", "qam",
        "--out", "a b", "--compile", "--over", "kl-budget=1,2", "--over", "steps=5,6",
    ]  # fmt: skip


def test_progress_for_a_log_is_whole_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "bench.progress"):
        progress_console("log").print("[bold]a run[/bold]: 1 of 2\nupdates")
    assert caplog.messages == ["a run: 1 of 2", "updates"]
    assert progress_console("none").quiet
    console = Console()
    assert progress_console(console) is console
