"""Bodies that walk in a commanded direction: what the experts behind maze data learn.

The tasks are those of OGBench (arXiv 2410.20092, appendix on datasets): its own online ant and
humanoid, which never fall out of an episode, and a reward for moving in a direction that changes
every 100 steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

__all__ = ["BODIES", "Body", "DirectionTask", "expert_folder"]


@dataclass(frozen=True, slots=True)
class Body:
    """A walker.

    Attributes:
        name: `ant` or `humanoid`.
        skipped: leading entries of a maze observation that the expert does not see: the position.
        action_dim: size of an action.
        observation_dim: size of the expert's observation, the direction included.
        published_steps: environment steps that OGBench's expert was trained for.
    """

    name: Literal["ant", "humanoid"]
    skipped: int
    action_dim: int
    observation_dim: int
    published_steps: int


BODIES = {
    "ant": Body("ant", 2, 8, 29, 400_000),
    "humanoid": Body("humanoid", 2, 21, 69, 40_000_000),
}


def expert_folder(data_dir: Path, name: str) -> Path:
    """Where a data folder keeps the checkpoints of an expert."""
    return data_dir / "experts" / name


_EPISODE_STEPS = 200
_DIRECTION_STEPS = 100
_STANDING_HEIGHT = 1.4


class DirectionTask:
    """One walker that is asked to move in a direction, a new one every 100 steps.

    Observations are those of the body without its position, then the direction, a unit vector.

    Args:
        body: which walker.
        seed: of starts and directions.
    """

    def __init__(self, body: Body, seed: int) -> None:
        # Imported here: MuJoCo takes a second to start.
        from ogbench.online_locomotion.ant import AntEnv
        from ogbench.online_locomotion.humanoid import HumanoidEnv

        self.body = body
        self._random = np.random.default_rng(seed)
        self._environment: Any = (
            AntEnv(terminate_when_unhealthy=False) if body.name == "ant" else HumanoidEnv()
        )
        self._seed: int | None = seed

    def reset(self) -> Float[np.ndarray, " O"]:
        """Begin an episode."""
        observation, _ = self._environment.reset(seed=self._seed)
        self._seed, self._steps = None, 0
        self._turn()
        return self._seen(observation)

    def step(
        self, action: Float[np.ndarray, " A"]
    ) -> tuple[Float[np.ndarray, " O"], float, bool, bool]:
        """Play an action in [-1, 1].

        Returns:
            The observation reached, with the direction that the reward was for; the reward;
            whether the episode was cut off; and whether the body is upright.
        """
        before = self.position
        observation, _, _, _, _ = self._environment.step(action)
        along = float((self.position - before) @ self._direction)
        if self.body.name == "humanoid":
            stands = _standing(self._environment.data)
            upright, reward = stands > 0.5, stands * (1.0 + 100.0 * along)
        else:
            # In decimetres, not metres as OGBench's: the entropy's first weight is 1.
            upright, reward = bool(self._environment.data.xmat[1, 8] > 0.0), 10.0 * along
        seen = self._seen(observation)
        self._steps += 1
        cut = self._steps == _EPISODE_STEPS
        if self._steps % _DIRECTION_STEPS == 0:
            self._turn()
        return seen, reward, cut, upright

    def observe(self) -> Float[np.ndarray, " O"]:
        """What to act on: as reached, with the direction wanted now."""
        return np.concatenate([self._body_part, self._direction]).astype(np.float32)

    @property
    def position(self) -> Float[np.ndarray, "2"]:
        """Where the body is, in metres."""
        return np.array(self._environment.data.qpos[:2])

    def _turn(self) -> None:
        drawn = self._random.standard_normal(2)
        self._direction = drawn / np.linalg.norm(drawn)

    def _seen(self, observation: np.ndarray) -> Float[np.ndarray, " O"]:
        self._body_part = observation
        return self.observe()


def _standing(data: Any) -> float:
    """DeepMind control's reward for standing upright, in [0, 1]."""
    height, vertical = float(data.xpos[2, 2]), float(data.xmat[1, 8])
    below = max(0.0, _STANDING_HEIGHT - height) / (_STANDING_HEIGHT / 4)
    standing = float(np.exp(np.log(0.1) * below**2))
    upright = float(np.clip(1.0 - (0.9 - vertical) / 1.9, 0.0, 1.0))
    return standing * upright
