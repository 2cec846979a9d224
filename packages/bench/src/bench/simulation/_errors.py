"""What a simulator's failure looks like to the code that asked for episodes."""

from __future__ import annotations

from bench.errors import BenchError

__all__ = ["EvaluationError"]


class EvaluationError(BenchError):
    """An episode could not be played to its end.

    Attributes:
        task: Name of the task.
        replica: Index of the replica whose episode it was.
        episode: Index of the episode within the replica.
        reason: What the environment, its worker process or the policy said.
    """

    def __init__(self, task: str, replica: int, episode: int, reason: str) -> None:
        super().__init__(f"{task}, replica {replica}, episode {episode}: {reason}")
        self.task = task
        self.replica = replica
        self.episode = episode
        self.reason = reason
