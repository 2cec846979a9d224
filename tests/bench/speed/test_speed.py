"""`bench speed` measures, and needs nothing but torch."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench.speed.__main__ import main
from bench.training.cost import calls_per_second, matmul_rate

TINY = (
    "--agents", "bc", "trqam", "--widths", "8", "--replicas", "1", "2", "--batch", "4",
    "--num-critics", "2", "--flow-steps", "2", "--seconds", "0.05", "--turns", "1",
    "--device", "cpu", "--threads", "1",
)  # fmt: skip


def test_every_combination_has_a_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*TINY, "--out", str(tmp_path / "speed.csv")]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:]] == ["bc", "bc", "trqam", "trqam"]
    for row in rows[2:]:
        updates, replicas = (float(row.split(" | ")[i].replace(",", "")) for i in (8, 9))
        assert 0.0 < updates <= replicas * 1.001
    assert len((tmp_path / "speed.csv").read_text().splitlines()) == 5


def test_an_unknown_agent_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--agents", "trqm"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_folders_are_made_and_hopeless_files_found_before_measuring(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*TINY, "--agents", "bc", "--out", str(tmp_path / "new" / "speed.json")]) == 0
    assert (tmp_path / "new" / "speed.json").exists()
    capsys.readouterr()
    assert main([*TINY, "--out", str(tmp_path / "new" / "speed.json" / "speed.csv")]) == 1
    assert "preparing" not in capsys.readouterr().err
    assert main([*TINY, "--against", "no-such-program"]) == 2
    assert "preparing" not in capsys.readouterr().err


def test_it_imports_neither_simulator_nor_tables() -> None:
    code = (
        "import sys, bench.speed.command; "
        "print({'mujoco', 'ogbench', 'polars', 'tyro', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_processor_time_needs_one_thread(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--clock", "cpu", "--agents", "bc", "--replicas", "1"]) == 0
    assert main([*TINY, "--clock", "cpu", "--threads", "2"]) == 2
    assert "--threads 1" in capsys.readouterr().err


def test_processes_measure_at_once_and_add_up(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table = tmp_path / "speed.csv"
    tiny = [*TINY, "--agents", "bc", "--processes", "2"]
    assert main([*tiny, "--out", str(table)]) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [(row["replicas"], row["processes"], row["threads"]) for row in rows] == [
        ("1", "2", "1"),
        ("2", "2", "1"),
    ]
    for row in rows:
        alone = float(row["updates_per_s"]) * int(row["replicas"])
        assert float(row["replica_updates_per_s"]) == pytest.approx(2 * alone, rel=1e-9)
    capsys.readouterr()
    assert main([*tiny, "--against", "true"]) == 2
    assert "leave --against" in capsys.readouterr().err
    assert main(["--agents", "nobody", "--processes", "2"]) == 1
    assert "unknown agent 'nobody'" in capsys.readouterr().err


def test_a_peer_is_a_row_of_the_same_table(capsys: pytest.CaptureFixture[str]) -> None:
    peer = f"{sys.executable} -c 'print(\"updates per second\", 12.5)'"
    assert main([*TINY, "--agents", "bc", "--replicas", "1", "--against", peer]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"| {peer} |")
    assert " 12.5 " in last


@pytest.mark.parametrize("program", ["print('fast')", "print(0)", "print(3); raise SystemExit(1)"])
def test_a_peer_that_prints_no_rate_is_an_error(
    program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = f'{sys.executable} -c "{program}"'
    assert main([*TINY, "--agents", "bc", "--replicas", "1", "--against", peer]) == 1
    assert "must print its updates per second last" in capsys.readouterr().err


ALIVE = """
import sys
print("started", flush=True)
print("ready", flush=True)
for asked, line in enumerate(sys.stdin, start=1):
    assert float(line) == 0.05
    if asked == {last}:
        raise SystemExit("out of memory")
    print("updates per second", 10.0 * asked, flush=True)
"""


def test_a_peer_that_is_ready_stays_alive_and_answers_every_turn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    program, table = tmp_path / "peer.py", tmp_path / "speed.json"
    tiny = [*TINY, "--agents", "bc", "--replicas", "1", "--turns", "3", "--out", str(table)]
    program.write_text(ALIVE.format(last=4))
    assert main([*tiny, "--against", f"{sys.executable} {program}"]) == 0
    ours, peer = json.loads(table.read_text())
    assert (peer["slowest"], peer["updates_per_s"], peer["fastest"]) == (10.0, 20.0, 30.0)
    # An update of these two hidden layers takes fewer operations than one of TRQAM, and some.
    assert 50 < ours["launches"] < 500
    assert peer["launches"] is None
    program.write_text(ALIVE.format(last=2))
    assert main([*tiny, "--against", f"{sys.executable} {program}"]) == 1
    assert "exited with 1: out of memory" in capsys.readouterr().err


def test_the_ceiling_is_no_lower_than_torchs_own_product() -> None:
    device = torch.device("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows, kernel = torch.randn(2560, 256), torch.randn(256, 256)
        own = calls_per_second(lambda: rows @ kernel, 0.1, device, time.process_time)
        ceiling = matmul_rate(device, 256, 0.1, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)
    assert ceiling > 0.7 * own * 2 * 2560 * 256 * 256
