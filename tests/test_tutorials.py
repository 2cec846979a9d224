"""The tutorials' code runs, in order, as a reader would type it, and does what they say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"


def blocks(name: str) -> list[str]:
    text = (TUTORIALS / name).read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_fine_tune_an_image_flow(capsys: pytest.CaptureFixture[str]) -> None:
    code = blocks("fine-tune-an-image-flow.md")
    lines = [line for block in code[:3] for line in block.splitlines() if line.strip()]
    assert len(lines) < 40
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in code:
            exec(compile(block, "tutorial", "exec"), names)
    printed = capsys.readouterr().out
    shares = [int(found) for found in re.findall(r"left (\d+)%", printed)]
    assert 40 <= shares[0] <= 65
    assert shares[0] + 20 <= shares[1] <= 98
    (kl,) = re.findall(r"path KL ([\d.]+) of", printed)
    assert 0.4 < float(kl) < 0.6


@pytest.mark.slow
def test_own_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks("own-policy.md")
    assert sum(1 for block in code for line in block.splitlines() if line.strip()) < 40
    names: dict[str, Any] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in code:
            exec(compile(block, "tutorial", "exec"), names)
    returns = dict(names["result"].curves.select("agent", "return_mean").iter_rows())
    assert 0.1 < returns["bc"] < 0.5
    assert returns["bc"] + 0.3 < returns["trqam"] <= 1.0
    assert isinstance(names["policy"], names["Policy"])


@pytest.mark.slow
def test_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_DATA_DIR", str(tmp_path / "data"))
    notebook = json.loads((TUTORIALS / "first-run.ipynb").read_text(encoding="utf-8"))
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {}
    for number, cell in enumerate(code):
        exec(compile(cell, f"cell {number}", "exec"), names)
    assert names["result"].complete
    assert "trqam" in names["result"]._repr_html_()
    assert names["kl"]["step"].to_list() == [5, 10, 15, 20]
    assert (names["kl"]["value"] > 0.0).all()
    assert names["chunk"].shape == (5, 2)
    assert names["report"].page.is_file()
