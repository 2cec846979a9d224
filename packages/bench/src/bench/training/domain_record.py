"""What a run's policies read and write, kept in the run directory for export."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.agents import Problem
from bench.errors import ResultsError
from bench.storage import read_json, require_count, require_name, write_json
from bench.suites import Domain
from bench.training.policy import ActionScale, Normalizer
from qlearn import LeafSpec, ObservationSpec, tree_leaves

__all__ = ["DomainRecord"]

_FORMAT = 1
_LONGEST_CHUNK = 10_000
_LARGEST_SIDE = 1 << 20


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
        leaves: type and shape of each leaf by name, the name of a single one empty; None for one
            vector. Such observations are not normalised: ``O`` is 0.
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
    leaves: Mapping[str, tuple[str, tuple[int, ...]]] | None = None

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
            leaves_of(problem.observation),
        )

    @property
    def problem(self) -> Problem:
        """Sizes."""
        return Problem(
            self.observation_dim,
            self.action_dim,
            self.horizon,
            self.action_spread,
            observation=spec_of(self.leaves),
        )

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
        content = {"format": _FORMAT, **asdict(self)}
        if self.leaves is None:
            del content["leaves"]
        write_json(self.path(directory, domain), content)

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
                f"there is no {path}; rerun the command that made the run to write it"
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
            named = name == "observation_dim" and self.leaves is not None
            require_count(name, getattr(self, name), path, least=0 if named else 1)
        spec_of(self.leaves)
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


def leaves_of(spec: ObservationSpec | None) -> dict[str, tuple[str, tuple[int, ...]]] | None:
    """A description of observations as plain data."""
    if spec is None:
        return None
    return {
        name: (str(leaf.dtype).removeprefix("torch."), leaf.shape)
        for name, leaf in tree_leaves(spec)
    }


def spec_of(leaves: Mapping[str, Any] | None) -> ObservationSpec | None:
    """The inverse of :func:`leaves_of`.

    Raises:
        ValueError: it describes no observations.
    """
    if leaves is None:
        return None
    found: dict[str, LeafSpec] = {}
    for name, (kind, shape) in leaves.items():
        dtype = getattr(torch, kind, None) if isinstance(kind, str) else None
        sides = tuple(shape)
        if not isinstance(dtype, torch.dtype) or not all(
            type(side) is int and 0 < side <= _LARGEST_SIDE for side in sides
        ):
            raise ValueError(f"leaf {name!r} is {kind} {shape}, which no observation has")
        found[name] = LeafSpec(sides, dtype)
    if not found:
        raise ValueError("observations have no leaves")
    return found[""] if set(found) == {""} else found
