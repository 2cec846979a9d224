"""The worked example, shortened: every step of the way runs, and both programs play the same."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "own_environment.py"


@pytest.mark.slow
def test_from_data_to_a_deployed_policy(tmp_path: Path) -> None:
    sizes = ["--transitions", "1500", "--pretrain-steps", "40", "--steps", "40", "--episodes", "3"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), "--out", str(tmp_path / "own"), *sizes],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MUJOCO_GL": "disabled"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (recorded,) = re.findall(r"recorded: 1,500 transitions, mean return ([\d.]+)", done.stdout)
    # The controller is weak and not worthless: what falls at once stands for 5 steps.
    assert 10 < float(recorded) < 60
    for text in ("success is a return of at least 950", "actions within", "returns"):
        assert text in done.stdout
    played = dict(re.findall(r"(\w+)Policy: mean return ([\d.]+)", done.stdout))
    assert set(played) == {"Onnx", "Torch"}
    assert abs(float(played["Onnx"]) - float(played["Torch"])) < 1.0
    assert 2 < float(played["Onnx"]) <= 1000
    (folder,) = (tmp_path / "own" / "run" / "export").iterdir()
    assert {path.name for path in folder.iterdir()} == {"policy.pt2", "policy.onnx", "policy.json"}
