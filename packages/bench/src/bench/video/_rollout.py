"""The episodes of an evaluation, played again with the policy of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bench.agents import Agent, draw
from bench.errors import CheckpointError
from bench.policies import built_agent
from bench.simulation import SimulatorPool, episode_seed, evaluate
from bench.storage import load_checkpoint
from bench.training.cells import Cell
from bench.training.domain_record import DomainRecord
from bench.training.stored import require_trusted
from bench.training.trainer import load_agent, trained_replica
from bench.video._select import SelectedCell
from qlearn import RandomStreams

__all__ = ["Rollout", "play"]

_EVALUATION = 0  # purpose of the episodes' seeds, as `bench.simulation.evaluate` has it


@dataclass(frozen=True, slots=True)
class Rollout:
    """Episodes of one cell at one checkpoint.

    Attributes:
        task: name that `bench.simulation.make` knows.
        step: of the checkpoint, within its phase.
        seeds: of the episodes, for the environment's reset.
        actions: per episode `(T, A)`, as the environment takes them.
        successes: per episode.
        returns: per episode.
        solved_at: return from which an episode is a success; None where the environment tells.
    """

    task: str
    step: int
    seeds: tuple[int, ...]
    actions: tuple[NDArray[np.float32], ...]
    successes: tuple[bool, ...]
    returns: tuple[float, ...]
    solved_at: float | None = None

    @property
    def solved(self) -> int:
        """Episodes that ended in success."""
        return sum(self.successes)


def play(selected: SelectedCell, pool: SimulatorPool, env: str | None = None) -> Rollout:
    """Plays the evaluation of the newest checkpoint: the same episodes with the same noise.

    Args:
        selected: the cell.
        pool: simulators.
        env: the run's environment as the user names it; needed where making it imports a module.

    Raises:
        ValueError: the environment is of a module that the user did not name.
        CheckpointError: there is no checkpoint.
        ResultsError: the run does not say what its policies read.
        EvaluationError: the environment failed.
    """
    cell = selected.cell
    require_trusted(cell.task, env, selected.directory)
    record = DomainRecord.read(selected.directory, cell.domain)
    directory = selected.directory / "packs" / cell.pack / "checkpoints"
    checkpoint = load_checkpoint(directory, set_aside=False)
    if checkpoint is None:
        raise CheckpointError(f"{directory} has no checkpoint yet")
    played_for = Cell(cell.domain, 0, cell.task, cell.agent, cell.seed)
    trained_replica(checkpoint, played_for)
    streams = RandomStreams([0] * selected.replicas)
    agent = built_agent(cell.agent, selected.settings, record, streams, selected.directory)
    load_agent(agent, checkpoint.tensors)
    purpose = "online evaluation" if selected.phase == "online" else "evaluation"
    seed = played_for.stream(purpose, checkpoint.step)
    policy = _Policy(selected, agent, record, RandomStreams([seed]), [])
    result = evaluate(policy, [cell.task], [seed], selected.episodes, pool=pool)
    result.raise_failures()
    lengths = result.lengths[0].tolist()
    played = np.concatenate(policy.chunks, axis=1)
    solved_at: float | None = selected.settings.get("task", {}).get("solved_at")
    returns = result.returns[0]
    successes = result.successes[0] if solved_at is None else returns >= solved_at
    return Rollout(
        cell.task,
        checkpoint.step,
        tuple(episode_seed(seed, _EVALUATION, e) for e in range(selected.episodes)),
        tuple(actions[:length] for actions, length in zip(played, lengths, strict=True)),
        tuple(successes.tolist()),
        tuple(returns.tolist()),
        solved_at,
    )


@dataclass(frozen=True, slots=True)
class _Policy:
    """One cell of a pack as the policy of an evaluation; keeps what it plays."""

    selected: SelectedCell
    agent: Agent
    record: DomainRecord
    streams: RandomStreams
    chunks: list[NDArray[np.float32]]

    def __call__(
        self, observations: NDArray[np.float32], waiting: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Chunks `(1, E, H, A)` for observations `(1, E, O)`."""
        row, rows = self.selected.replica, self.selected.replicas
        problem = self.record.problem

        def placed(value: torch.Tensor) -> torch.Tensor:
            everywhere = value.new_zeros(rows, *value.shape[1:])
            everywhere[row] = value[0]
            return everywhere

        drawn = draw(self.streams, self.agent.acting_noise(observations.shape[1]))
        noise = {name: placed(value) for name, value in drawn.items()}
        seen = torch.from_numpy(self.record.normalizer(observations))
        flat = self.agent.act(placed(seen), noise)[row]
        chunks: NDArray[np.float32] = self.record.action_scale(
            flat.reshape(-1, problem.horizon, problem.action_dim).float().numpy()
        )
        self.chunks.append(chunks)
        return chunks[None]
