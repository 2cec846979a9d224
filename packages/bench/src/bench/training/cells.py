"""Cells (one run each) and packs (runs trained together), planned from a suite."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.experiment import Phase, is_cloning
from bench.suites import Domain, Suite, TrainingProtocol

__all__ = ["Cell", "Pack", "plan", "split", "stable_seed"]


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

    Attributes:
        suite: name of the suite.
        domain: with the tasks of the pack.
        protocol: how long, how often.
        agent: name in the registry.
        seeds: one run per task and seed.
        online: whether this is the online phase of its cells.
        from_scratch: whether its agents learn in the online phase alone.
        variant: swept settings as name=value, in which it differs from packs of the same agent.
            Random streams do not depend on it.
        all_tasks: whether it has every task of the domain that the job has.
    """

    suite: str
    domain: Domain
    protocol: TrainingProtocol
    agent: str
    seeds: tuple[int, ...]
    online: bool = False
    from_scratch: bool = False
    variant: tuple[str, ...] = ()
    all_tasks: bool = True

    @property
    def clones(self) -> bool:
        """Whether it is of behaviour cloning."""
        return is_cloning(self.agent)

    @property
    def phase(self) -> Phase:
        """Phase of the tables that the pack's rows belong to."""
        if self.online:
            return Phase.ONLINE
        return Phase.PRETRAIN if self.clones else Phase.OFFLINE

    @property
    def name(self) -> str:
        """Folder name of the pack, unique within a run directory."""
        # An agent of the user's is named module:class.
        parts = [self.domain.name, self.agent.replace(":", "."), *self.variant]
        if not self.all_tasks:
            parts.append("tasks-" + "-".join(map(str, self.domain.tasks)))
        parts.append("seeds-" + "-".join(map(str, self.seeds)))
        if self.online:
            parts.append("online")
        return "--".join(parts)

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
        if self.clones:
            return tuple(stable_seed(self.domain.name, self.agent, seed) for seed in self.seeds)
        purpose = "online training" if self.online else "training"
        return tuple(cell.stream(purpose) for cell in self.cells)

    @property
    def cells_per_replica(self) -> int:
        """Cells that share a replica's parameters."""
        return len(self.cells) // len(self.replica_seeds)

    @property
    def steps(self) -> int:
        """Steps until the pack is finished: of the environment if it is online, else updates."""
        match self.phase:
            case Phase.PRETRAIN:
                return self.protocol.pretrain_steps
            case Phase.OFFLINE:
                return self.protocol.offline_steps
            case Phase.ONLINE:
                return self.protocol.online.steps

    def updates_at(self, step: int) -> int:
        """Updates of this phase that have been made after so many of its steps."""
        if not self.online:
            return step
        online = self.protocol.online
        return max(0, step - online.warm_up) * online.updates_per_step

    @property
    def updates_before(self) -> int:
        """Updates that its agents have behind them when the pack begins."""
        return self.protocol.offline_steps if self.online and not self.from_scratch else 0

    def step_of(self, update: int) -> int:
        """The step that makes an update of this phase, counted from 1."""
        if not self.online:
            return update
        online = self.protocol.online
        return online.warm_up + -(-update // online.updates_per_step)


def plan(
    suite: Suite,
    agent: str,
    seeds: Sequence[int],
    largest_pack: int | None = None,
) -> tuple[Pack, ...]:
    """The packs of a suite for one agent.

    Args:
        suite: narrowed to the wanted domains and tasks.
        agent: name in the registry.
        seeds: one run per task and seed.
        largest_pack: most runs in a pack; seeds are split over packs to respect it, and tasks where
            one seed's are too many. Behaviour cloning has no tasks to split.
    """
    packs: list[Pack] = []
    for domain in suite.domains:
        whole = Pack(suite.name, domain, suite.protocol, agent, ())
        packs += split(whole, seeds, largest_pack)
    return tuple(packs)


def split(whole: Pack, seeds: Sequence[int], largest_pack: int | None) -> list[Pack]:
    """The packs of one domain and agent.

    Args:
        whole: a pack of all their tasks, of whatever seeds.
        seeds: one run per task and seed.
        largest_pack: see :func:`plan`.
    """
    tasks = whole.domain.tasks
    together = len(seeds) * len(tasks) if largest_pack is None else largest_pack
    parts = 1 if whole.clones else -(-len(tasks) // together)
    return [
        replace(
            whole,
            domain=replace(whole.domain, tasks=some_tasks),
            seeds=some_seeds,
            all_tasks=parts == 1,
        )
        for some_seeds in _groups(seeds, -(-len(seeds) // max(1, together // len(tasks))))
        for some_tasks in _groups(tasks, parts)
    ]


def _groups(numbers: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cut a sequence into pieces whose sizes differ by one at most."""
    cuts = [round(index * len(numbers) / count) for index in range(count + 1)]
    return [tuple(numbers[first:last]) for first, last in itertools.pairwise(cuts)]
