"""Small environments with known outcomes, registered as ``contrived_environments:<id>``.

Worker processes import this module by that name, which is how gymnasium finds a user's own tasks.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

LENGTH = 7
_ELSEWHERE: dict[int, float] = {}
"""State that does not lie in an environment's attributes."""


class Counting(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes (episode's number, step); rewards the first action entry; succeeds at its end."""

    def __init__(self, trouble: str = "none") -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._trouble = trouble
        self._step = 0
        self._ended = True
        self._length = LENGTH
        self._number = 0.0
        self._hoard: list[np.ndarray] = []
        if trouble == "unsavable":
            self.socket = Path  # a class is fine, its instance below is not
            self.thing: Any = _Opaque()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._step, self._ended = 0, False
        # The three sources of chance that OGBench's environments draw from.
        self._number = float(
            self.np_random.uniform()
            + np.random.uniform()  # noqa: NPY002
            + self.action_space.sample()[0]
        )
        if self._trouble == "uneven":
            self._length = 2 + int(self.np_random.integers(10))
        if self._trouble == "reset":
            raise RuntimeError("no ground to stand on")
        _ELSEWHERE.pop(id(self), None)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert not self._ended, "a step was played after the episode's end"
        self._step += 1
        if self._step == 3:
            self._make_trouble()
        if self._trouble == "slow":
            time.sleep(0.05)
        self._number += 1e-3 * np.random.normal()  # noqa: NPY002
        if self._trouble == "forgetful":
            _ELSEWHERE[id(self)] = self._number = _ELSEWHERE.get(id(self), 0.0) / 2 + self._number
        self._ended = self._step == self._length
        reward = np.nan if self._trouble == "nan reward" and self._step == 3 else float(action[0])
        told: Any = "yes" if self._trouble == "odd" and self._ended else self._ended
        return self._observe(), reward, self._ended, False, {"success": told}

    def _make_trouble(self) -> None:
        while self._trouble == "hang":
            time.sleep(1.0)
        while self._trouble == "greedy":
            self._hoard.append(np.ones(1 << 20))
        if self._trouble == "raise":
            raise ArithmeticError("the simulation diverged")
        if self._trouble == "die":
            os._exit(3)
        if self._trouble == "die once":
            flag = Path(os.environ["CONTRIVED_FLAG"])
            if not flag.exists():
                flag.touch()
                os._exit(4)

    def _observe(self) -> np.ndarray:
        if self._trouble == "wide" and self._step == 3:
            return np.zeros(3)
        step = np.nan if self._trouble == "nan" and self._step == 3 else float(self._step)
        return np.array([self._number, step])


class _Opaque:
    pass


for trouble in (
    "none", "reset", "raise", "die", "die once", "slow", "uneven", "unsavable", "forgetful",
    "hang", "greedy", "nan", "nan reward", "wide", "odd",
):  # fmt: skip
    gymnasium.register(
        f"Counting-{trouble.title().replace(' ', '')}-v0",
        entry_point=Counting,
        kwargs={"trouble": trouble},
        max_episode_steps=100,
    )


class Leaves(Counting):
    """Observes a nested dictionary of every kind of leaf; the image shows the step."""

    def __init__(self, trouble: str = "none") -> None:
        super().__init__("none")
        box, spaces = gymnasium.spaces.Box, gymnasium.spaces
        arm = {"joints": box(-np.inf, np.inf, (2,), np.float64), "grip": spaces.Discrete(9)}
        self.observation_space = spaces.Dict(
            {
                "robot": spaces.Dict(arm),
                "image": box(0, 255, (4, 5, 3), np.uint8),
                "lamps": spaces.MultiBinary(3),
            }
        )
        self._leaf_trouble = trouble

    def _observe(self) -> Any:
        image = np.full((4, 5, 3), 20 * self._step, np.uint8)
        joints = super()._observe()
        seen = {
            "robot": {"joints": joints, "grip": self._step},
            "image": image,
            "lamps": np.array([1, 0, self._step % 2], np.int8),
        }
        if self._step == 3:
            if self._leaf_trouble == "missing":
                del seen["lamps"]
            if self._leaf_trouble == "nan":
                seen["robot"] = {"joints": joints * np.nan, "grip": 0}
            if self._leaf_trouble == "float image":
                seen["image"] = image / 255
            if self._leaf_trouble == "wide":
                seen["image"] = np.zeros((5, 4, 3), np.uint8)
        return seen


for trouble in ("none", "missing", "nan", "float image", "wide"):
    gymnasium.register(
        f"Leaves-{trouble.title().replace(' ', '')}-v0",
        entry_point=Leaves,
        kwargs={"trouble": trouble},
        max_episode_steps=100,
    )
