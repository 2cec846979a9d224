"""Evaluations by the user: a function, an environment at hand, or none at all."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from bench.agents import Agent
from bench.policies import LoadedPolicy, TrainedPolicy
from bench.simulation import Evaluation
from bench.training.cells import Cell, Pack
from bench.training.domain_record import DomainRecord

__all__ = ["EvaluateFunction", "UserEvaluation", "play_in"]

EvaluateFunction: TypeAlias = Callable[[LoadedPolicy], Any]
"""Plays episodes with a policy and returns what they gave: see :class:`UserEvaluation`."""


@dataclass(frozen=True, slots=True)
class UserEvaluation:
    """Evaluates an agent by a function of the user's.

    The function is called with a :class:`bench.LoadedPolicy` and returns the returns of its
    episodes (a number or a sequence), or a mapping with `returns` and, where they are known,
    `successes` and `lengths`, one entry per episode each.

    Attributes:
        directory: of the run.
        function: plays; None where there is nothing to play.
        solved_at: return from which an episode counts as a success that the function does not tell.
    """

    directory: Path
    function: EvaluateFunction | None
    solved_at: float | None = None

    def __call__(self, agent: Agent, pack: Pack, step: int) -> Evaluation | None:
        """What the function found for the one run of a pack.

        Raises:
            ValueError: it returned something else.
        """
        if self.function is None:
            return None
        (cell,) = pack.cells
        record = DomainRecord.read(self.directory, cell.domain)
        seed = cell.stream("evaluation", step)
        trained = TrainedPolicy(agent, record, cell, pack.phase, step)
        device = agent.learner.parameters[0].device
        found = self.function(LoadedPolicy(trained, noise_seed=seed, device=device))
        return _evaluation(cell, seed, found, self.solved_at)


def play_in(environment: Any, episodes: int) -> EvaluateFunction:
    """A function that plays a Gymnasium environment at hand, in this process.

    Episode number e begins with `reset(seed=e)`, at every evaluation. Success is what the
    environment says in `info["success"]` at an episode's end.

    Args:
        environment: with bounded episodes.
        episodes: of an evaluation.
    """

    def play(policy: LoadedPolicy) -> dict[str, list[float]]:
        outcome: dict[str, list[float]] = {"returns": [], "lengths": [], "successes": []}
        for episode in range(episodes):
            observation, _ = environment.reset(seed=episode)
            total, length, ended, info = 0.0, 0, False, {}
            while not ended:
                for action in np.asarray(policy(observation)):
                    observation, reward, terminated, truncated, info = environment.step(action)
                    total, length = total + float(reward), length + 1
                    if ended := bool(terminated or truncated):
                        break
            outcome["returns"].append(total)
            outcome["lengths"].append(length)
            if "success" in info:
                outcome["successes"].append(float(info["success"]))
        return outcome if outcome["successes"] else {n: outcome[n] for n in ("returns", "lengths")}

    return play


def _evaluation(cell: Cell, seed: int, found: Any, solved_at: float | None) -> Evaluation:
    """The result of a user's function in the form of the simulators'."""
    table = found if isinstance(found, Mapping) else {"returns": found}
    unknown = set(table) - {"returns", "successes", "lengths"}
    if unknown or not table:
        raise ValueError(
            f"evaluate() returned {sorted(map(str, unknown)) or 'nothing'}; expected the episodes' "
            "returns, or a mapping with 'returns', 'successes' or 'lengths', one entry per episode"
        )
    columns = {name: _column(name, values) for name, values in table.items()}
    sizes = {name: len(column) for name, column in columns.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"evaluate() returned columns of different lengths, {sizes}")
    episodes = next(iter(sizes.values()))
    returns = columns.get("returns", np.full(episodes, math.nan))
    successes = columns.get("successes", returns >= (math.inf if solved_at is None else solved_at))
    return Evaluation(
        tasks=(cell.task_name,),
        seeds=(seed,),
        successes=successes[None] > 0.5,
        returns=returns[None],
        lengths=columns.get("lengths", np.zeros(episodes))[None].astype(np.int64),
        failures=(None,),
        steps=0,
        seconds=0.0,
        restarts=0,
    )


def _column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, Sequence | np.ndarray | torch.Tensor | int | float | np.number):
        with contextlib.suppress(TypeError, ValueError):
            column = np.atleast_1d(np.asarray(values, np.float64))
            if column.ndim == 1 and column.size:
                return column
    raise ValueError(
        f"evaluate() returned {values!r:.60} as {name}; expected one number per episode"
    )
