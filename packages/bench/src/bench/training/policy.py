"""A pack's agent as the policy that evaluation calls with arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.agents import Agent, Problem, draw
from bench.simulation import ArrayTree
from bench.suites import Domain
from bench.training.cells import Pack
from qlearn import RandomStreams, tree_map

__all__ = ["ActionScale", "Normalizer", "PackPolicy"]


@dataclass(frozen=True, slots=True)
class Normalizer:
    """Shift and scale of observations, ``(O,)`` each; the agent sees ``(o - shift) / scale``."""

    shift: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def identity(cls, observation_dim: int) -> "Normalizer":
        """Leaves observations as they are."""
        return cls(np.zeros(observation_dim, np.float32), np.ones(observation_dim, np.float32))

    @classmethod
    def none(cls) -> "Normalizer":
        """For images and named leaves, which pass as they are; it has no columns."""
        return cls.identity(0)

    @property
    def passes(self) -> bool:
        """Whether observations stay as they are, whatever they are."""
        return self.shift.size == 0

    @classmethod
    def fit(cls, observations: NDArray[np.float32]) -> "Normalizer":
        """Mean and standard deviation of ``(N, O)``; constant columns keep their scale."""
        return cls.of_moments(
            observations.mean(0, dtype=np.float64), observations.std(0, dtype=np.float64)
        )

    @classmethod
    def of_moments(cls, mean: NDArray[np.float64], std: NDArray[np.float64]) -> "Normalizer":
        """From mean and standard deviation of every column; constant ones keep their scale."""
        return cls(mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32))

    def __call__(self, observations: ArrayTree) -> ArrayTree:
        """Normalised observations, ``(..., O)``; others as they are."""
        if self.passes:
            return observations
        # Integer observations would make the difference float64.
        return (np.asarray(observations, np.float32) - self.shift) / self.scale


@dataclass(frozen=True, slots=True)
class ActionScale:
    """From an agent's actions in [-1, 1] to those of the environment.

    Attributes:
        low: what -1 stands for ``(A,)``; None where actions stay as they are.
        high: what 1 stands for ``(A,)``.
    """

    low: NDArray[np.float32] | None = None
    high: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, domain: Domain) -> "ActionScale":
        """The scale of a domain's environment; OGBench's take actions as they are."""
        return cls.between(*domain.source.action_range)

    @classmethod
    def between(cls, low: tuple[float, ...], high: tuple[float, ...]) -> "ActionScale":
        """From bounds that are empty where actions stay as they are."""
        return cls(np.array(low, np.float32), np.array(high, np.float32)) if low else cls()

    def __call__(self, actions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions ``(..., A)`` for the environment."""
        if self.low is None or self.high is None:
            return actions
        return self.low + (actions + 1.0) * (0.5 * (self.high - self.low))


@dataclass(slots=True)
class PackPolicy:
    """Acts for every cell of a pack: observations ``(C, E, O)`` to chunks ``(C, E, H, A)``.

    Dictionaries of observations ``(C, E, *leaf)`` reach the agent as trees ``(R, n, *leaf)``.

    Noise is drawn per cell from the evaluation's own streams, so evaluating does not disturb
    training and a cell's actions do not depend on what it is packed with.

    Attributes:
        pack: whose cells are evaluated.
        agent: with one replica for every ``pack.cells_per_replica`` cells.
        problem: sizes.
        normalizer: of the training data.
        streams: one random stream per cell.
    """

    pack: Pack
    agent: Agent
    problem: Problem
    normalizer: Normalizer
    streams: RandomStreams

    def __call__(self, observations: ArrayTree, waiting: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Action chunks for one observation per cell and episode."""
        cells, episodes = waiting.shape
        shared = self.pack.cells_per_replica
        noise = {
            name: self._by_replica(value, shared)
            for name, value in draw(self.streams, self.agent.acting_noise(episodes)).items()
        }
        rows: Any = tree_map(
            lambda leaf: self._by_replica(torch.from_numpy(leaf).to(self.streams.device), shared),
            self.normalizer(observations),
        )
        chunks = self.agent.act(rows, noise)
        shape = (cells, episodes, self.problem.horizon, self.problem.action_dim)
        actions: NDArray[np.float32] = chunks.reshape(shape).float().cpu().numpy()
        return ActionScale.of(self.pack.domain)(actions)

    @staticmethod
    def _by_replica(value: Tensor, shared: int) -> Tensor:
        """``(C, E, ...)`` to ``(R, C/R * E, ...)``: a replica's cells are neighbours."""
        cells, rows, *rest = value.shape
        return value.reshape(cells // shared, shared * rows, *rest)
