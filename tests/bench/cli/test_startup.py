"""What the command line needs before it does anything."""

import json
import subprocess
import sys
from typing import Any

import pytest

from bench.cli import main
from bench.cli._commands import COMMANDS

_HEAVY = ("torch", "tyro", "numpy", "polars", "gymnasium", "matplotlib", "rich")


def fresh(code: str) -> Any:
    """What `code` leaves in `found`, run by an interpreter of its own."""
    script = f"import json, sys, time\n{code}\nprint(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_help_lists_every_command_quickly_and_imports_nothing_heavy() -> None:
    found = fresh(
        "from bench.cli import main\n"
        "assert main(['--help']) == 0\n"
        f"found = [time.process_time(), [m for m in {_HEAVY} if m in sys.modules]]"
    )
    assert 0.0 < found[0] < 0.5
    assert found[1] == []


def test_importing_bench_and_its_requests_is_light() -> None:
    heavy = ("torch", "tyro", "gymnasium", "rich")
    code = f"import bench, bench.experiment\nfound = [m for m in {heavy} if m in sys.modules]"
    assert fresh(code) == []


def test_explaining_a_command_needs_no_torch() -> None:
    code = """
from bench.cli import main
for name in ("offline", "online", "sweep", "ablate", "data", "report", "status", "speed", "plan"):
    assert main([name, "--help"]) == 0, name
found = "torch" in sys.modules
"""
    assert fresh(code) is False


def test_the_help_is_that_of_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, summary) in COMMANDS.items():
        assert f"  {name} " in text
        assert summary in text
        assert main([name, "--help"]) == 0
        assert f"usage: bench {name} " in capsys.readouterr().out
