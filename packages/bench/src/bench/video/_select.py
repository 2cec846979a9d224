"""Which runs of a run directory to show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from bench.agents import AGENTS
from bench.experiment import Phase, is_cloning
from bench.results import is_task, method_label, task_label
from bench.storage import PlannedCell, RunRecord, read_run, require_count
from bench.suites import unknown

__all__ = ["SelectedCell", "select_cells"]

_MOST_EPISODES = 100_000


@dataclass(frozen=True, slots=True)
class SelectedCell:
    """A cell of a run and what is needed to find and rebuild its policy.

    Attributes:
        directory: run directory.
        cell: as planned.
        phase: `pretrain`, `offline` or `online`.
        replica: row of the cell's parameters in its pack.
        replicas: rows of the pack.
        settings: the pack's entry of the run's settings.
        episodes: of an evaluation of the run.
    """

    directory: Path
    cell: PlannedCell
    phase: str
    replica: int
    replicas: int
    settings: Mapping[str, Any]
    episodes: int

    @property
    def label(self) -> str:
        """For people."""
        method = method_label(self.cell.agent, self.cell.variant)
        return f"{method}, {task_label(self.cell.task)}, seed {self.cell.seed}"

    @property
    def file_name(self) -> str:
        """Without suffix."""
        variant = self.cell.variant.replace(", ", "--")
        task = self.cell.task.removesuffix("-v0").replace(":", "-").replace("/", "-")
        parts = [task, self.cell.agent, variant]
        online = ["online"] if self.phase == Phase.ONLINE else []
        return "--".join(filter(None, [*parts, f"seed-{self.cell.seed}", *online]))


def select_cells(
    directory: Path,
    *,
    agent: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    variant: str | None = None,
) -> list[SelectedCell]:
    """The cells that fit; of a cell with an online phase the policy at the end of that.

    Args:
        directory: run directory.
        agent: its name; by default all but behaviour cloning, unless there is nothing else.
        task: name of the task, or its end such as ``task2-v0``, ``task2`` or ``2``; 1 is also the
            task of own data. All by default.
        seed: the smallest by default.
        variant: as in the tables; all by default.

    Raises:
        ResultsError: it is no run directory.
        ValueError: no cell fits; says what there is.
    """
    record = read_run(directory)
    if agent is not None:
        AGENTS.get(agent)  # The user names it, so its module may be imported.
    packs = record.packs
    cells = [cell for cell in record.cells if cell.pack in packs]
    wanted: dict[str, Any] = {"agent": agent, "variant": variant, "seed": seed}
    for name, value in wanted.items():
        known = sorted({getattr(cell, name) for cell in cells})
        if value is not None and value not in known:
            # As a shell takes them: variants hold spaces and commas.
            shown = [quote(str(other)) for other in known if other != ""]
            if not shown:
                raise ValueError(f"{directory} has no {name}s; leave --{name} out")
            raise ValueError(unknown(name, str(value), shown, str(directory)))
        if value is not None:
            cells = [cell for cell in cells if getattr(cell, name) == value]
    if task is not None:
        found = [cell for cell in cells if is_task(cell.task, task)]
        if not found:
            tasks = ", ".join(sorted({cell.task for cell in cells}))
            raise ValueError(f"{directory} has no task {task}; its tasks are {tasks}")
        cells = found
    if agent is None and any(not is_cloning(cell.agent) for cell in cells):
        cells = [cell for cell in cells if not is_cloning(cell.agent)]
    if seed is None:
        first = min((cell.seed for cell in cells), default=0)
        cells = [cell for cell in cells if cell.seed == first]
    later = {(c.task, c.agent, c.variant) for c in cells if Phase.ONLINE in c.final_steps}
    cells = [
        cell
        for cell in cells
        if Phase.ONLINE in cell.final_steps or (cell.task, cell.agent, cell.variant) not in later
    ]
    if not cells:
        raise ValueError(f"{directory} has no run with this agent, task, seed and variant")
    return [_selected(directory, record, cell, packs[cell.pack]) for cell in cells]


def _selected(
    directory: Path, record: RunRecord, cell: PlannedCell, settings: dict[str, Any]
) -> SelectedCell:
    pack = [other for other in record.cells if other.pack == cell.pack]
    (phase,) = cell.final_steps
    # Behaviour cloning reads no rewards: the tasks of a seed share one policy.
    replicas = len(settings["seeds"]) if phase == Phase.PRETRAIN else len(pack)
    episodes = settings.get("protocol", {}).get("episodes", record.settings["protocol"]["episodes"])
    episodes = min(require_count("episodes", episodes, directory, least=1), _MOST_EPISODES)
    shared = len(pack) // replicas
    return SelectedCell(
        directory, cell, phase, pack.index(cell) // shared, replicas, settings, episodes
    )
