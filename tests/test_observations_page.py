"""The page about observations says what its code prints."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

PAGE = Path(__file__).parents[1] / "docs" / "observations.md"


def test_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "'image': torch.Size([1, 32, 64, 64, 3]), 'state': torch.Size([1, 32, 4])" in printed
    assert "torch.float32 torch.uint8" in printed
    assert "torch.Size([1, 32, 68]) torch.Size([1, 2, 32])" in printed
    assert "'image': (dtype('uint8'), (6, 64, 64, 3))" in printed
    assert "'robot/arm': (dtype('float32'), (6, 4))" in printed
    assert (tmp_path / "demos" / "observations.robot%2Farm.npy").is_file()
