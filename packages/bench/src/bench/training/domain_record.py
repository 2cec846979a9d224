"""What a run's policies read and write, kept in the run directory for export."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.agents import Problem
from bench.errors import ResultsError
from bench.storage import read_json, require_count, require_name, write_json
from bench.suites import Domain
from bench.training.policy import ActionScale, Normalizer

__all__ = ["DomainRecord"]

_FORMAT = 1
_LONGEST_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class DomainRecord:
    """The two ends of a domain's policies.

    Attributes:
        environment: Gymnasium id, or OGBench's name of the first task.
        observation_dim: size ``O``.
        action_dim: size ``A``.
        horizon: chunk length ``H``.
        shift: of the observations ``(O,)``; a policy sees ``(o - shift) / scale``.
        scale: of the observations ``(O,)``.
        action_low: what -1 stands for ``(A,)``; empty where it is -1 itself.
        action_high: what 1 stands for ``(A,)``; empty where it is 1 itself.
        action_spread: standard deviation of the data's actions ``(A,)``, in [-1, 1].
    """

    environment: str
    observation_dim: int
    action_dim: int
    horizon: int
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    action_spread: tuple[float, ...] = ()

    @classmethod
    def of(cls, domain: Domain, problem: Problem, normalizer: Normalizer) -> "DomainRecord":
        """The record of a domain that is about to be trained on.

        Args:
            domain: of the plan.
            problem: sizes.
            normalizer: of the training data.
        """
        low, high = domain.source.action_range
        return cls(
            domain.task_name(domain.tasks[0]),
            problem.observation_dim,
            problem.action_dim,
            problem.horizon,
            tuple(normalizer.shift.tolist()),
            tuple(normalizer.scale.tolist()),
            low,
            high,
            problem.action_spread,
        )

    @property
    def problem(self) -> Problem:
        """Sizes."""
        return Problem(self.observation_dim, self.action_dim, self.horizon, self.action_spread)

    @property
    def normalizer(self) -> Normalizer:
        """Of the training data."""
        return Normalizer(np.array(self.shift, np.float32), np.array(self.scale, np.float32))

    @property
    def action_scale(self) -> ActionScale:
        """From the agent's actions to the environment's."""
        return ActionScale.between(self.action_low, self.action_high)

    @staticmethod
    def path(directory: Path, domain: str) -> Path:
        """Where a run directory keeps the record of a domain."""
        require_name("domain", domain, directory)
        return directory / "domains" / f"{domain}.json"

    def keep(self, directory: Path, domain: str) -> None:
        """Write the record into a run directory."""
        write_json(self.path(directory, domain), {"format": _FORMAT, **asdict(self)})

    @classmethod
    def read(cls, directory: Path, domain: str) -> "DomainRecord":
        """Read what :meth:`keep` wrote.

        Raises:
            ResultsError: there is none, or it cannot be read.
        """
        path = cls.path(directory, domain)
        try:
            content: dict[str, Any] = read_json(path)
            if content.pop("format") != _FORMAT:
                raise ResultsError(f"{path} was written by a later version of bench")
            values: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in content.items()
            }
            record = cls(**values)
            record._require_sizes(path)
            return record
        except FileNotFoundError as error:
            raise ResultsError(
                f"there is no {path}; the command that made the run writes it when it is repeated"
            ) from error
        except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
            raise ResultsError(f"{path} cannot be used: {error!r}") from error

    def _require_sizes(self, path: Path) -> None:
        """Refuses sizes that disagree, before anything of that size is made.

        Raises:
            ValueError: what was found.
        """
        require_name("task", self.environment, path)
        for name in ("observation_dim", "action_dim", "horizon"):
            require_count(name, getattr(self, name), path, least=1)
        if self.horizon > _LONGEST_CHUNK:
            raise ValueError(f"horizon {self.horizon} is above {_LONGEST_CHUNK}")
        sizes = {
            "shift": {self.observation_dim},
            "scale": {self.observation_dim},
            "action_low": {0, self.action_dim},
            "action_high": {0, self.action_dim},
            "action_spread": {0, self.action_dim},
        }
        for name, allowed in sizes.items():
            values = getattr(self, name)
            if not isinstance(values, tuple) or len(values) not in allowed:
                raise ValueError(f"{name} has not {max(allowed)} numbers")
            if not all(type(v) in (int, float) and math.isfinite(v) for v in values):
                raise ValueError(f"{name} holds what is no finite number")
        if not all(self.scale):
            raise ValueError("scale holds a zero")
