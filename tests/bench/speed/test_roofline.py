"""The roofline counts what operations touch, and is drawn."""

import json
from pathlib import Path

import pytest
import torch

from bench.speed.__main__ import main
from bench.speed.roofline import traffic


def test_traffic_is_what_operations_read_and_write() -> None:
    x, y = torch.ones(8, 4), torch.ones(4, 2)
    assert traffic(lambda: x @ y) == 4 * (32 + 8 + 16)
    assert traffic(lambda: x.t().unsqueeze(0)) == 0
    assert traffic(lambda: torch.stack([y, y])) == 4 * (8 + 8 + 16)


def test_a_picture_and_its_figures_are_written(tmp_path: Path) -> None:
    out, picture = tmp_path / "rows.json", tmp_path / "roofline.png"
    arguments = (
        "--agents bc --widths 8 16 --batch 4 --flow-steps 2 --seconds 0.05 --turns 1 --device cpu "
        f"--threads 1 --out {out} --roofline {picture}"
    )
    assert main(arguments.split()) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    narrow, wide = json.loads(out.read_text())
    assert 0.0 < narrow["intensity"] < wide["intensity"] < 16.0
    assert narrow["bandwidth_gb_s"] > 0.1


@pytest.mark.parametrize("option", ["--roofline x.txt", "--roofline x.png --modes compiled"])
def test_an_impossible_picture_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(option.split()) == 2
    assert "--roofline" in capsys.readouterr().err
