"""The code of the libraries' pages runs, in order, as a reader would type it."""

import re
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize(
    "page",
    [
        "adjoint.md",
        "flowsde.md",
        "large-models.md",
        "trustregion.md",
        "tutorials/from-a-hand-copied-loop.md",
    ],
)
@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_the_code_of_a_page_runs(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == text.count("```python")
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        for block in blocks:
            exec(compile(block, page, "exec"), names)
    if page == "large-models.md":
        printed = capsys.readouterr().out
        uniform, late = map(float, re.findall(r"\d\.\d\d", printed))
        assert 0.9 < uniform < 1.1
        assert 1.5 < late < 1.7
        assert "torch.float32 torch.float32" in printed
