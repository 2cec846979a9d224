"""Cells (one run each) and packs (runs trained together), planned from a suite."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.suites import Domain, Protocol, Setting, Suite

__all__ = ["Cell", "Pack", "plan", "stable_seed"]


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends on the parts' text only, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a task, an agent and a seed.

    Attributes:
        domain: name of the task's domain.
        task: number of the single task within its domain.
        task_name: OGBench's name of the single task.
        agent: name in the registry.
        seed: the seed the user asked for.
    """

    domain: str
    task: int
    task_name: str
    agent: str
    seed: int

    def stream(self, purpose: str, *parts: object) -> int:
        """Seed of this cell's random stream for one purpose."""
        return stable_seed(self.task_name, self.agent, self.seed, purpose, *parts)

    def __str__(self) -> str:
        return f"{self.agent} on {self.task_name}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Pack:
    """Runs of one domain and agent that train as one: replica r is ``cells[r]``.

    Behaviour cloning reads no rewards, so there one replica serves all tasks of a seed: a pack of
    agent `bc` has one replica per seed and ``cells_per_replica`` cells for each.
    """

    suite: str
    domain: Domain
    protocol: Protocol
    agent: str
    settings: Mapping[str, Setting]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        """Folder name of the pack, unique within a run directory."""
        return f"{self.domain.name}--{self.agent}--seeds-{'-'.join(map(str, self.seeds))}"

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All runs, seed by seed, tasks in order within a seed."""
        return tuple(
            Cell(self.domain.name, task, self.domain.task_name(task), self.agent, seed)
            for seed in self.seeds
            for task in self.domain.tasks
        )

    @property
    def replica_seeds(self) -> tuple[int, ...]:
        """Seed of each replica's training stream."""
        if self.agent == "bc":
            return tuple(stable_seed(self.domain.name, "bc", seed) for seed in self.seeds)
        return tuple(cell.stream("training") for cell in self.cells)

    @property
    def cells_per_replica(self) -> int:
        """Cells that share a replica's parameters."""
        return len(self.cells) // len(self.replica_seeds)

    @property
    def steps(self) -> int:
        """Updates until the pack is finished."""
        return self.protocol.pretrain_steps if self.agent == "bc" else self.protocol.offline_steps


def plan(
    suite: Suite,
    agent: str,
    settings: Mapping[str, Mapping[str, Setting]],
    seeds: Sequence[int],
    largest_pack: int | None = None,
) -> tuple[Pack, ...]:
    """The packs of a suite for one agent.

    Args:
        suite: narrowed to the wanted domains and tasks.
        agent: name in the registry.
        settings: agent settings by domain name.
        seeds: one run per task and seed.
        largest_pack: most runs in a pack; seeds are split over packs to respect it.
    """
    packs: list[Pack] = []
    for domain in suite.domains:
        per_pack = len(seeds)
        if largest_pack is not None:
            per_pack = max(1, largest_pack // len(domain.tasks))
        packs += [
            Pack(
                suite.name,
                domain,
                suite.protocol,
                agent,
                settings[domain.name],
                tuple(seeds[first : first + per_pack]),
            )
            for first in range(0, len(seeds), per_pack)
        ]
    return tuple(packs)
