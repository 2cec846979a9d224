import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from bench.simulation import SimulatorPool, environment_id, evaluate


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cube-single-play-singletask-task1-v0", "cube-single-singletask-task1-v0"),
        ("cube-single-play-singletask-v0", "cube-single-singletask-v0"),
        ("pointmaze-medium-navigate-singletask-task5-v0", "pointmaze-medium-singletask-task5-v0"),
        ("puzzle-4x4-play-v0", "puzzle-4x4-v0"),
        ("scene-singletask-task2-v0", "scene-singletask-task2-v0"),
        ("Pendulum-v1", "Pendulum-v1"),
        ("contrived_environments:Counting-None-v0", "Counting-None-v0"),
    ],
)
def test_task_names_lead_to_environments(name: str, expected: str) -> None:
    assert environment_id(name) == expected


def test_an_unknown_task_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"did you mean.*cube-single-singletask-task1-v0"):
        environment_id("cube-singel-play-singletask-task1-v0")
    with pytest.raises(ValueError, match="module 'no_such_module'"):
        environment_id("no_such_module:Thing-v0")


def test_a_module_in_the_current_folder_is_found_here_and_in_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_pendulum.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:PendulumEnv',"
        " max_episode_steps=3)\n"
    )
    elsewhere = [place for place in sys.path if place != str(tmp_path)]
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.chdir(tmp_path)
    try:
        assert environment_id("my_pendulum:Mine-v0") == "Mine-v0"
        with pytest.raises(ValueError, match=r"did you mean my_pendulum:Mine-v0\?"):
            environment_id("my_pendulum:Mine")
        with SimulatorPool(1) as pool:
            result = evaluate(
                lambda observations, alive: np.zeros((1, 1, 1, 1), np.float32),
                ["my_pendulum:Mine-v0"],
                [0],
                1,
                pool=pool,
            )
        assert result.lengths.tolist() == [[3]]
    finally:
        gymnasium.registry.pop("Mine-v0", None)
        sys.modules.pop("my_pendulum", None)
    before = list(sys.path)
    with pytest.raises(ValueError, match=r"not from .* either"):
        environment_id("nowhere_at_all:Mine-v0")
    assert sys.path == before
    with pytest.raises(ValueError, match="module:id where a module of yours registers it"):
        environment_id("Mine-v0")
