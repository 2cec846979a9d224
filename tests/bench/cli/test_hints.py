"""What messages tell to do next can be typed as it stands."""

import errno
import shlex
from pathlib import Path

import numpy as np
import pytest

from bench.cli import main
from bench.cli._failure import report
from bench.data import locate
from bench.errors import BenchError
from bench.training.training_data import memory_limit


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["offline", "--agent"], "--agent"),
        (["offline", "--set", "--dry-run"], "--set"),
        (["offline", "--set", "num_critics=2", "--domains"], "--domains"),
        (["sweep", "--over", "num_critics=2,3", "--tasks"], "--tasks"),
        (["online", "--track", "--dry-run"], "--track"),
        (["video", "run", "--episodes"], "--episodes"),
    ],
)
def test_an_option_without_its_values_is_refused(
    command: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert capsys.readouterr().err == f"error: {option} was given without a value\n"


@pytest.fixture
def found(tmp_path: Path) -> Path:
    rows = {
        "observations": np.zeros((3, 1)),
        "actions": np.array([[-2.0], [0.5], [2.0]]),
        "rewards": np.zeros(3),
        "terminals": np.array([0, 0, 1]),
        "timeouts": np.zeros(3),
    }
    np.savez(tmp_path / "found.npz", **rows)  # type: ignore[arg-type]
    return tmp_path / "found.npz"


def test_an_import_says_what_it_needs_and_what_comes_next(
    found: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a folder"
    command = ["data", "import", str(found), "mine", "--data-dir", str(folder)]
    assert main(command) == 2
    assert "--env ID or --action-range LOWEST HIGHEST" in capsys.readouterr().err
    assert main([*command, "--action-range", "-1.5", "2"]) == 2
    assert "(scaled from the range -1.5 to 2.0)" in capsys.readouterr().err
    command += ["--action-range", "-2", "2"]
    assert main(command) == 0
    hint = capsys.readouterr().out.split("`")[1]
    assert main(shlex.split(hint)[1:]) == 0
    assert main(command) == 2
    assert "replace it with --overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    with pytest.raises(ValueError, match=r"there is mine"):
        locate("mime", folder)


def test_commands_name_the_folder_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    with pytest.raises(ValueError, match="are not on") as caught:
        locate("cube-double-play-v0", folder)
    commands = [text for text in str(caught.value).split("`") if text.startswith("bench data")]
    assert len(commands) == 3
    for command in commands:
        assert shlex.split(command)[-2:] == ["--data-dir", str(folder)]
    monkeypatch.setenv("BENCH_DATA_DIR", str(folder))
    with pytest.raises(ValueError, match="are not on") as caught:
        locate("cube-double-play-v0")
    assert "--data-dir" not in str(caught.value)


def test_a_data_folder_that_cannot_be_written_comes_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("bench.training.domain_data.generate", refused)
    command = ["offline", "--preset", "smoke", "--agent", "bc", "--out", str(tmp_path / "run")]
    assert main([*command, "--data-dir", str(folder)]) == 1
    remedy = "see to its permissions, or give another folder with --data-dir"
    assert f"{folder}: Permission denied; {remedy}" in capsys.readouterr().err


def test_an_amount_of_memory_is_asked_for_by_its_option() -> None:
    import torch

    with pytest.raises(ValueError, match=r"^--data-memory must be auto or an amount"):
        memory_limit("foo", torch.device("cpu"), 1)


def test_a_report_of_a_file_that_is_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert main(["report", str(tmp_path / "run.json")]) == 1
    expected = f"error: {tmp_path}/run.json is not a table (.parquet); give run directories"
    assert capsys.readouterr().err.startswith(expected)


def test_what_a_file_or_server_says_does_nothing_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert report(BenchError("version \x1b[2J\x07 of the file"), ["data"], debug=False) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.startswith("error: version ")
    assert said.endswith(" of the file\n")
