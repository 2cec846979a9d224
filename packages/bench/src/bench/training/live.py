"""Experience from a loop that is not ours: a robot's, or a simulator with a life of its own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.agents import Agent, Problem, draw
from bench.simulation import LARGEST_NUMBER
from bench.storage import part
from bench.training.online import grown
from bench.training.policy import ActionScale
from qlearn import Observation, RandomStreams, RingBuffer, tree_map

__all__ = ["LiveExperience"]


@dataclass(slots=True)
class LiveExperience:
    """What one run lives through; the caller acts and tells what came of it.

    Attributes:
        ring: keeps what happened.
        streams: of the run, for acting alone.
        problem: sizes.
        scale: of the actions that are handed out.
    """

    ring: RingBuffer
    streams: RandomStreams
    problem: Problem
    scale: ActionScale
    _chunk: Tensor = field(init=False)
    _left: int = field(default=0, init=False)
    _pending: tuple[Observation, Tensor] | None = field(default=None, init=False)
    _inside: bool = field(default=False, init=False)
    _return: float = field(default=0.0, init=False)
    _episodes: int = field(default=0, init=False)
    _last_return: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        self._chunk = torch.zeros(self.problem.horizon, self.problem.action_dim)

    @property
    def episodes(self) -> int:
        """Episodes that have ended."""
        return self._episodes

    def act(self, agent: Agent, observation: Observation) -> NDArray[np.float32]:
        """The next action ``(A,)`` of the chunk that is played, or of a new one.

        Args:
            agent: asked where a chunk has ended.
            observation: leaves ``(1, *leaf)``.

        Raises:
            ValueError: the action before has not been observed.
        """
        if self._pending is not None:
            raise ValueError("act() was called twice; tell what came of an action by observe()")
        if self._left == 0:
            noise = draw(self.streams, agent.acting_noise(1))
            rows: Any = tree_map(
                lambda leaf: leaf.unsqueeze(1).to(self.streams.device), observation
            )
            self._chunk = agent.act(rows, noise).reshape(self._chunk.shape).float().cpu()
            self._left = self.problem.horizon
        action = self._chunk[self.problem.horizon - self._left]
        self._left -= 1
        self._pending = (observation, action)
        return self.scale(action.numpy())

    def observe(
        self, observation: Observation, reward: float, *, terminated: bool, truncated: bool
    ) -> None:
        """Keep what came of the last action.

        Args:
            observation: after it, leaves ``(1, *leaf)``.
            reward: for it.
            terminated: the task ended: no value follows.
            truncated: the episode was cut short.

        Raises:
            ValueError: no action is waiting, or the reward is not finite.
        """
        if self._pending is None:
            raise ValueError("observe() without act(): there is no action that this came of")
        try:
            reward = float(reward)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the reward is {reward!r:.60}; expected one number") from error
        if not abs(reward) <= LARGEST_NUMBER:
            raise ValueError(
                f"the reward is {reward}; expected a finite number of at most {LARGEST_NUMBER:g}"
            )
        before, action = self._pending
        ended = terminated or truncated
        self.ring.add(
            before,
            action[None],
            torch.tensor([reward]),
            torch.tensor([0.0 if terminated else 1.0]),
            torch.tensor([ended]),
            observation,
        )
        self._pending, self._inside = None, not ended
        self._return += reward
        if ended:
            self._left, self._episodes = 0, self._episodes + 1
            self._last_return, self._return = self._return, 0.0

    def step(self, agent: Agent) -> None:
        """Nothing: the step has been observed before."""
        del agent

    def metrics(self) -> dict[str, list[float]]:
        """Episodes ended since the phase began, and the return of the last."""
        return {"episodes": [float(self._episodes)], "episode_return": [self._last_return]}

    def failures(self) -> Mapping[int, tuple[int, str]]:
        """None: what fails out there is the caller's."""
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        """Ring, queue, counters and streams; an action that is being played is not part of it."""
        counters = [self._left, self._episodes, self._inside]
        return {
            "chunk": self._chunk,
            "counters": torch.tensor([int(value) for value in counters]),
            "returns": torch.tensor([self._return, self._last_return], dtype=torch.float64),
            **{f"ring.{name}": value for name, value in self.ring.state_dict().items()},
            **{f"streams.{name}": value for name, value in self.streams.state_dict().items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken, with a new episode.

        The one that was going on then counts as cut short: nobody knows what came of it. A ring
        that holds a shorter phase is made as long as this one.
        """
        self._chunk = state["chunk"].cpu()
        left, episodes, inside = state["counters"].tolist()
        self._return, self._last_return = state["returns"].tolist()
        self._left, self._episodes, self._inside = left, episodes, False
        self._pending = None
        own, ring = self.ring.state_dict(), part(state, "ring.")
        self.ring.load_state_dict({name: grown(ring[name], own[name]) for name in ring})
        self.streams.load_state_dict(part(state, "streams."))
        if inside:
            self._cut()

    def _cut(self) -> None:
        """End the episode whose last transition was stored."""
        slot = (int(self.ring.added) - 1) % self.ring.capacity
        self.ring.ends[:, slot] = True
        self.ring.lengths.zero_()
        self._left, self._episodes, self._return = 0, self._episodes + 1, 0.0
