"""What a simulator's failure looks like to the code that asked for episodes."""

from __future__ import annotations

import traceback

from bench.errors import BenchError

__all__ = ["EnvironmentFaultError", "EvaluationError", "describe_error"]


class EnvironmentFaultError(BenchError):
    """An environment returned what nobody can train on or act on; the text says what."""


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


def describe_error(error: Exception) -> str:
    """Return the exception with the place it was raised at, in one line."""
    if isinstance(error, EnvironmentFaultError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    hint = (
        "; the environment may have reached its memory limit (--env-memory sets it)"
        if isinstance(error, MemoryError)
        else ""
    )
    return f"{type(error).__name__}: {error}{place}{hint}"
