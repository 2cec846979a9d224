"""Goal reaching from 64 x 64 images, drawn by NumPy without a simulator, and data recorded in it.

Five pads stand on a circle around the start, one green and four red. The agent, a white dot, walks
to a pad; the episode ends on the first pad that it enters and is a success on the green one. Which
pad is green, and where the circle begins, is drawn anew for every episode and can only be seen in
the image.

The recorded behaviour does not care about colours: it walks to any of the five pads with equal
chance. So data have five modes at the start, every one of them leads somewhere, and a clone
succeeds in one episode of five, while the green pad is reached in every episode that picks the
right mode: there is nothing to learn but the choice.

    uv run python examples/pixel_reaching.py --out reaching.npz --episodes 2000

writes transitions with observations of two leaves, ``image`` (bytes) and ``position``, and prints
how often the behaviour succeeds. `PixelReach-v0` observes both leaves, `PixelReachImage-v0` the
image alone; where `gymnasium.make` is to find them in other processes, the ids are
`pixel_reaching:PixelReach-v0` and `pixel_reaching:PixelReachImage-v0`.
"""

import argparse
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

SIZE = 64  # Rows and columns of an image.
PADS = 5
RADIUS = 0.36  # Of the circle on which the pads stand; the world is the unit square.
PAD = 0.09  # Half the side of a pad.
STEP = 0.06  # Length of the largest move along one axis.
MOST_STEPS = 30

_GROUND, _GREEN, _RED, _AGENT = (
    np.array(colour, np.uint8)
    for colour in ((40, 44, 52), (64, 200, 96), (208, 64, 64), (255, 255, 255))
)
_CENTRES = (np.arange(SIZE) + 0.5) / SIZE  # Of the pixels, along either axis.


class PixelReach(gymnasium.Env[Any, np.ndarray]):
    """A point in the unit square that is moved by up to 0.06 a step along each axis.

    Args:
        image_only: observe the image instead of a dictionary of image and position.
    """

    def __init__(self, image_only: bool = False) -> None:
        image = gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        position = gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)
        both = gymnasium.spaces.Dict({"image": image, "position": position})
        self.observation_space = image if image_only else both
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._image_only = image_only
        self.pads = np.zeros((PADS, 2))
        self.goal = 0
        self.position = np.zeros(2)
        self._scene = np.zeros((SIZE, SIZE, 3), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Turn the circle, choose the green pad, and go back to the middle."""
        super().reset(seed=seed, options=options)
        angles = 2 * np.pi * (self.np_random.random() + np.arange(PADS) / PADS)
        self.pads = 0.5 + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        self.goal = int(self.np_random.integers(PADS))
        self.position = 0.5 + self.np_random.uniform(-0.03, 0.03, 2)
        self._scene[:] = _GROUND
        for number, pad in enumerate(self.pads):
            self._scene[_near(pad, PAD)] = _GREEN if number == self.goal else _RED
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move; reward 1 and success on the green pad, the end on any."""
        move = STEP * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.position = np.clip(self.position + move, 0.0, 1.0)
        on = np.flatnonzero((np.abs(self.pads - self.position) <= PAD).all(axis=1))
        success = bool((on == self.goal).any())
        return self._observe(), float(success), len(on) > 0, False, {"success": success}

    def _observe(self) -> Any:
        image = self._scene.copy()
        image[_near(self.position, 0.035)] = _AGENT
        if self._image_only:
            return image
        return {"image": image, "position": self.position.astype(np.float32)}


def _near(place: np.ndarray, distance: float) -> tuple[slice, slice]:
    """Rows and columns of the square around a place; the first coordinate runs along columns."""
    column, row = (
        slice(*np.searchsorted(_CENTRES, (at - distance, at + distance)).tolist()) for at in place
    )
    return row, column


for _name, _image_only in (("PixelReach-v0", False), ("PixelReachImage-v0", True)):
    gymnasium.register(
        _name,
        entry_point=PixelReach,
        kwargs={"image_only": _image_only},
        max_episode_steps=MOST_STEPS,
    )


class Behaviour:
    """Walks to a pad that it chose by chance, whatever its colour, with noise in every step.

    Args:
        environment: where it walks.
        random: what it draws from.
        noise: standard deviation that is added to every action.
    """

    def __init__(
        self, environment: PixelReach, random: np.random.Generator, noise: float = 0.3
    ) -> None:
        self.environment, self.random, self.noise = environment, random, noise
        self.target = environment.pads[random.integers(PADS)]

    def __call__(self) -> np.ndarray:
        """The next action ``(2,)``."""
        ahead = self.target - self.environment.position
        action = ahead / np.abs(ahead).max() + self.noise * self.random.normal(size=2)
        return np.clip(action, -1.0, 1.0).astype(np.float32)


def record(episodes: int, seed: int = 0, *, image_only: bool = False) -> dict[str, np.ndarray]:
    """Play the behaviour and keep every step.

    Args:
        episodes: to play.
        seed: of the environment and of the behaviour.
        image_only: record images instead of images and positions.

    Returns:
        Rows of states: an episode of L transitions has L + 1 of them, the last with `terminals` 1
        and an action and a reward that mean nothing. `masks` are 0 where an episode ended for good.
        Observations are `observations/image` and `observations/position`, or `observations`.
    """
    environment, random = PixelReach(image_only), np.random.default_rng(seed)
    seen: list[Any] = []
    rows: list[tuple[np.ndarray, float, float, float]] = []
    for episode in range(episodes):
        observation, _ = environment.reset(seed=seed if episode == 0 else None)
        behaviour, terminated, steps = Behaviour(environment, random), False, 0
        while not terminated and steps < MOST_STEPS:
            action = behaviour()
            seen.append(observation)
            observation, reward, terminated, _, _ = environment.step(action)
            rows.append((action, reward, 0.0, float(not terminated)))
            steps += 1
        seen.append(observation)
        rows.append((np.zeros(2, np.float32), 0.0, 1.0, 1.0))
    actions, rewards, terminals, masks = (
        np.array(column, np.float32) for column in zip(*rows, strict=True)
    )
    arrays = {"actions": actions, "rewards": rewards, "terminals": terminals, "masks": masks}
    if image_only:
        return {"observations": np.stack(seen), **arrays}
    leaves = {f"observations/{name}": np.stack([one[name] for one in seen]) for name in seen[0]}
    return {**leaves, **arrays}


def main() -> None:
    """Record a file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    arrays = record(options.episodes, options.seed)
    np.savez(options.out, **arrays)  # type: ignore[arg-type]
    played = int(arrays["terminals"].sum())
    print(f"{played} episodes, {len(arrays['actions']) - played} transitions")
    print(f"the behaviour succeeds in {arrays['rewards'].sum() / played:.1%} of them")


if __name__ == "__main__":
    main()
