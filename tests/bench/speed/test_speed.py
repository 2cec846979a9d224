"""`bench speed` measures, and needs nothing but torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.speed.__main__ import main

TINY = (
    "--agents", "bc", "trqam", "--widths", "8", "--replicas", "1", "2", "--batch", "4",
    "--critics", "2", "--flow-steps", "2", "--seconds", "0.05", "--turns", "1",
    "--device", "cpu", "--threads", "1",
)  # fmt: skip


def test_every_combination_has_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*TINY, "--out", str(tmp_path / "speed.csv")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == ["bc", "bc", "trqam", "trqam"]
    for row in rows[2:]:
        updates, replicas = (float(row.split(" | ")[i].replace(",", "")) for i in (7, 8))
        assert 0.0 < updates <= replicas * 1.001
    assert len((tmp_path / "speed.csv").read_text().splitlines()) == 5


def test_an_unknown_agent_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agents", "trqm"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_it_imports_neither_simulator_nor_tables() -> None:
    code = (
        "import sys, bench.speed.command; "
        "print({'mujoco', 'ogbench', 'polars', 'tyro', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
