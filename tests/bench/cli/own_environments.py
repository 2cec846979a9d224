"""Environments as users have them, registered as ``own_environments:<id>``."""

import threading
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

LENGTH = 20


class Reach(gymnasium.Env[np.ndarray, np.ndarray]):
    """A point that is pushed along a line; the reward is 1 close to the origin."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        whole = kind == "whole"
        most, dtype = (1000, np.int64) if whole else (np.inf, np.float64)
        self.observation_space = Box(-most, most, (2,), dtype)
        bound = np.inf if kind in ("unbounded", "bounded") else 1.0
        self.action_space = Box(-bound, bound, (1,), np.float32)
        self._place = 0.0
        self._step = 0
        if kind == "locked":
            self.lock = threading.Lock()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self._place, self._step = float(self.np_random.uniform(-1, 1)), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        self._place = float(np.clip(self._place + 0.2 * float(action[0]), -1.5, 1.5))
        reward = float(abs(self._place) < 0.15)
        # Later than a rehearsal gets to with an action that does anything.
        if self._kind == "late" and self._step > 12 and abs(float(action[0])) > 1e-4:
            reward = np.nan
        return self._observe(), reward, False, False, {"success": None}

    def _observe(self) -> np.ndarray:
        found = np.array([self._place, 1.0])
        return np.round(100 * found).astype(np.int64) if self._kind == "whole" else found


def advised() -> gymnasium.Env[np.ndarray, np.ndarray]:
    """What is advised where actions are unbounded."""
    return gymnasium.wrappers.TransformAction(
        Reach("bounded"), lambda action: action, Box(-1.0, 1.0, (1,))
    )


for kind in ("whole", "locked", "late", "unbounded"):
    gymnasium.register(
        f"{kind.title()}-v0", Reach, kwargs={"kind": kind},
        max_episode_steps=LENGTH, reward_threshold=5.0,
    )  # fmt: skip
gymnasium.register("Advised-v0", advised, max_episode_steps=LENGTH, reward_threshold=5.0)
