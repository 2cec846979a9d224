"""A plan in a directory that holds runs already: those stay in the packs that they began in.

So a directory takes more agents, seeds and tasks, and what is in it goes on exactly. Numbers do not
depend on the packs, up to the order of float operations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import ResultsError
from bench.storage import read_run
from bench.training.cells import Pack, split
from bench.training.run_plan import Plan

__all__ = ["holds_results", "in_existing_packs"]

_Method = tuple[str, str, str]
"""Domain, agent and variant."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """The runs of one pack of a run directory."""

    name: str
    tasks: tuple[int, ...]
    seeds: tuple[int, ...]

    @property
    def runs(self) -> set[tuple[int, int]]:
        """Seed and task of each."""
        return {(seed, task) for seed in self.seeds for task in self.tasks}

    def of(self, pattern: Pack) -> Pack:
        """The pack itself, from one of the same method."""
        return replace(
            pattern,
            domain=replace(pattern.domain, tasks=self.tasks),
            seeds=self.seeds,
            all_tasks="--tasks-" not in self.name,
        )


def holds_results(directory: Path) -> bool:
    """Whether a run directory has a checkpoint or a row of a table."""
    packs = directory / "packs"
    return any(
        file.is_file()
        for kind in ("*.parquet", "checkpoints/step-*/*")
        for file in packs.glob(f"*/{kind}")
    )


def in_existing_packs(plan: Plan) -> Plan:
    """The plan with the packs of its directory where that holds its runs, and others beside them.

    A pack that holds one of the runs is continued as a whole.

    Raises:
        ResultsError: the directory's record cannot be read.
    """
    directory = plan.directory
    if not (directory / "run.json").exists() or not holds_results(directory):
        return plan
    kept = _read(directory)
    configs: dict[str, Any] = {}

    def regrouped(packs: Sequence[Pack], more: Mapping[str, set[tuple[int, int]]]) -> list[Pack]:
        found: list[Pack] = []
        for method, of_method in _by_method(packs).items():
            runs = {run for pack in of_method for run in _runs(pack)} | more.get(method[0], set())
            config = plan.configs[of_method[0].name]
            new = _grouped(of_method[0], runs, kept.get(method, []), plan.largest_pack)
            configs.update({pack.name: config for pack in new})
            found += new
        return found

    packs = regrouped(plan.packs, {})
    started: dict[str, set[tuple[int, int]]] = {}  # runs that need a clone, by domain
    for pack in packs:
        started.setdefault(pack.domain.name, set()).update(_runs(pack))
    pretraining = regrouped(plan.pretraining, started)
    tasks: dict[str, set[int]] = {}
    for pack in (*pretraining, *packs):
        tasks.setdefault(pack.domain.name, set()).update(pack.domain.tasks)
    domains = tuple(
        replace(domain, tasks=tuple(sorted(tasks.get(domain.name, set()) | {*domain.tasks})))
        for domain in plan.suite.domains
    )
    return replace(
        plan,
        suite=replace(plan.suite, domains=domains),
        pretraining=tuple(pretraining),
        packs=tuple(packs),
        configs=configs,
    )


def _read(directory: Path) -> dict[_Method, list[_Kept]]:
    """The packs of a run directory; an offline and an online one of the same runs count once."""
    record = read_run(directory)
    domains = {cell.pack: cell.domain for cell in record.cells}
    found: dict[_Method, list[_Kept]] = {}
    try:
        for name, pack in record.packs.items():
            method = (domains[name], pack["agent"], pack.get("variant", ""))
            kept = _Kept(name.removesuffix("--online"), (*pack["tasks"],), (*pack["seeds"],))
            if kept not in found.setdefault(method, []):
                found[method].append(kept)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{directory / 'run.json'} cannot be used: {error!r}") from error
    return found


def _by_method(packs: Sequence[Pack]) -> dict[_Method, list[Pack]]:
    found: dict[_Method, list[Pack]] = {}
    for pack in packs:
        method = (pack.domain.name, pack.agent, ", ".join(pack.variant))
        found.setdefault(method, []).append(pack)
    return found


def _runs(pack: Pack) -> set[tuple[int, int]]:
    return {(cell.seed, cell.task) for cell in pack.cells}


def _grouped(
    pattern: Pack, runs: set[tuple[int, int]], kept: Sequence[_Kept], largest_pack: int | None
) -> list[Pack]:
    """The kept packs that hold some of the runs, and new ones of the others."""
    found = [entry.of(pattern) for entry in kept if entry.runs & runs]
    left = runs - {run for pack in found for run in _runs(pack)}
    tasks_of: dict[int, tuple[int, ...]] = {}
    for seed, task in sorted(left):
        tasks_of[seed] = (*tasks_of.get(seed, ()), task)
    taken = {entry.name for entry in kept}
    for tasks in dict.fromkeys(tasks_of.values()):
        seeds = [seed for seed, its in tasks_of.items() if its == tasks]
        whole = replace(pattern, domain=replace(pattern.domain, tasks=tasks))
        # The name of all tasks may be that of another job's, which had fewer.
        found += [
            replace(pack, all_tasks=False) if pack.name in taken else pack
            for pack in split(whole, seeds, largest_pack)
        ]
    return found
