"""The README's code runs, in order, as a reader would type it."""

import re
from pathlib import Path

import pytest
import torch

README = Path(__file__).parents[1] / "README.md"


def test_the_code_blocks_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    samples = names["samples"]
    assert isinstance(samples, torch.Tensor)
    assert abs(float(samples.mean()) - 2.0) < 0.05
    assert abs(float(samples.std()) - 0.5) < 0.05
    assert "torch.Size([3, 256])" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "printed"),
    [("bench", "torch.Size([1, 7, 10])"), ("adjoint", "tensor("), ("trustregion", "tensor(")],
)
def test_the_packages_readmes_run(
    package: str, printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = README.parent / "packages" / package / "README.md"
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(readme), "exec"), names)
    assert printed in capsys.readouterr().out
    if package == "adjoint":
        shift = names["shift"]
        assert isinstance(shift, torch.Tensor)
        assert bool((shift > 0.1).all())
        assert bool((shift < 3.0).all())


def test_links_lead_somewhere() -> None:
    text = README.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert len(links) > 10
    for link in links:
        assert (README.parent / link).exists(), link
