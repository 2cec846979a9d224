import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import tyro

from bench.cli import main
from bench.cli.data import Data
from bench.data import DataRecord, catalogue
from bench.errors import BenchError

MAZE = "pointmaze-medium-navigate-v0"


def _run(*arguments: str) -> int:
    commands = {"data": Data, "other": Data}
    return tyro.extras.subcommand_cli_from_dict(commands, args=["data", *arguments]).run()


def test_generate_inspect_verify_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--data-dir", str(tmp_path)]
    name = "pointmaze-medium-navigate-2k-v0"
    assert _run("generate", name, "--processes", "1", *folder) == 0
    text = capsys.readouterr().out
    assert "3,000 transitions at" in text
    assert str(tmp_path / f"{name}.npz") in text
    assert _run("generate", name, "--processes", "1", *folder) == 0
    assert "already there" in capsys.readouterr().out

    assert _run("inspect", name, *folder) == 0
    text = capsys.readouterr().out
    record = json.loads((tmp_path / f"{name}.json").read_text())
    assert record["files"][f"{name}.npz"]["fingerprint"] in text
    assert "2 episodes of 1,000 to 1,000" in text
    assert "2,002 x 2" in text

    assert _run("verify", *folder) == 0
    assert capsys.readouterr().out == f"{name}: intact\n"
    assert _run("list", *folder) == 0
    text = capsys.readouterr().out
    (row,) = (line.split() for line in text.splitlines() if line.startswith(name))
    size = sum(path.stat().st_size for path in tmp_path.glob("*.npz"))
    assert row == [name, "2k", "generate,", "get", f"{size / 1e6:.1f}", "MB", "generated"]
    assert "cube-quadruple-play-100m-v0" in text

    path = tmp_path / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:-5])
    assert _run("verify", name, *folder) == 1
    assert "truncated or damaged archive" in capsys.readouterr().out
    assert _run("list", *folder) == 1
    assert f"{name}: {name}.npz: length differs from the record\n" in capsys.readouterr().out


@pytest.mark.parametrize("own", ["flights", "flights-" + 10 * "over-the-sea-"])
def test_the_list_cuts_no_name_on_a_terminal_of_80_columns(own: str, tmp_path: Path) -> None:
    (tmp_path / "antmaze-giant-navigate-v0.npz").write_bytes(bytes(1_234_567))
    DataRecord(own, "random policy").write(tmp_path / f"{own}.json")
    (tmp_path / f"{own}.npz").touch()
    script = "import sys; from bench.cli import main; sys.exit(main(sys.argv[1:]))"
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    arguments = [sys.executable, "-c", script, "data", "list", "--data-dir", str(tmp_path)]
    process = subprocess.Popen(
        arguments, stdin=follower, stdout=follower, env=environment | {"TERM": "dumb"}
    )
    os.close(follower)
    chunks = []
    # Linux says by an error that the other end is closed.
    with contextlib.suppress(OSError):
        while chunk := os.read(leader, 65536):
            chunks.append(chunk)
    os.close(leader)
    assert process.wait() == 0
    lines = b"".join(chunks).decode().splitlines()
    assert "\u2026" not in "".join(lines)
    (end,) = (i for i, line in enumerate(lines) if line.startswith("* needs an expert"))
    assert max(map(len, lines[:end])) <= 80
    names = [entry.dataset for entry in catalogue(tmp_path)]
    if own == "flights":
        first = [line.split()[0] for line in lines[2:end]]
        assert [name for name in first if name in names] == names
        (row,) = (line.split() for line in lines if line.startswith("antmaze-giant-navigate-v0"))
        assert row == [row[0], "1M", "generate*,", "get", "1.2", "MB", "unknown"]
    folded = "".join(line.split()[0] for line in lines[2:end])
    assert all(name in folded for name in names)


def test_a_bad_name_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="near it: cube-double-play"):
        _run("generate", MAZE, "cube-duoble-play-v0", "--data-dir", str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="name a dataset"):
        _run("generate")


@pytest.mark.parametrize(
    "command",
    [
        ["list"],
        ["generate", "pointmaze-medium-navigate-1k-v0"],
        ["get", "pointmaze-medium-navigate-v0"],
        ["verify"],
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["data", *command, "--data-dir", str(tmp_path / "file")]) == 1
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'file'}")
    assert "file where a folder is needed: give another folder with --data-dir" in message
    assert "Errno" not in message


def test_a_folder_that_is_not_there_is_not_intact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "verify", "--data-dir", str(tmp_path / "none")]) == 2
    assert f"folder {tmp_path / 'none'} does not exist" in capsys.readouterr().err


def test_a_full_disk_is_said_without_a_path_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bench.data.generate", full)
    with pytest.raises(BenchError, match=r"^No space left on device; make space and run"):
        _run("generate", MAZE)


def test_output_is_quiet_without_a_terminal(tmp_path: Path) -> None:
    script = (
        "import sys, tyro\n"
        "from bench.cli.data import Data\n"
        "sys.exit(tyro.cli(Data, args=sys.argv[1:]).run())"
    )
    arguments = ["generate", "pointmaze-medium-navigate-1k-v0", "--processes", "1"]
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments, "--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_the_command_line_imports_nothing_heavy() -> None:
    script = (
        "import sys, bench.cli.data\n"
        "heavy = {'torch', 'numpy', 'mujoco', 'ogbench', 'rich.progress'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
