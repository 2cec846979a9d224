"""The pixel example runs, on less data and in fewer steps than it takes to learn anything."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "pixel_fine_tuning.py"


@pytest.mark.slow
def test_the_pixel_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "runs" / "pixels"
    options = {"out": out, "episodes": 10, "clone-steps": 2, "steps": 2, "test-episodes": 3}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "nats per move, budget 0.400" in capsys.readouterr().out
    assert (out / "pixels.png").stat().st_size > 10_000
