"""What a run directory is for: written when it begins, compared when it goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.storage import (
    PlannedCell,
    RunRecord,
    collect_provenance,
    environment_differences,
    read_run,
    write_run,
)
from bench.training.options import Plan

__all__ = ["record_plan"]

_log = logging.getLogger(__name__)


def record_plan(plan: Plan, command: Sequence[str]) -> None:
    """Write what a plan's directory is for, or refuse one that holds another run.

    A directory of the offline phase alone may be given an online phase; one that has it may be
    continued by either command.

    Raises:
        ValueError: the directory holds a run with other settings.
    """
    directory = plan.directory
    # Through JSON, as the settings on disk went: tuples are lists there.
    settings: dict[str, Any] = json.loads(json.dumps(plan.settings()))
    if not (directory / "run.json").exists():
        provenance = collect_provenance(list(command), device=str(plan.device))
        _log.info("begun", extra={"fields": {"event": "begun", "provenance": provenance}})
        write_run(directory, RunRecord(list(command), settings, provenance, _cells(plan)))
        return
    record = read_run(directory)
    found = dict(record.settings)
    if "online" in found and "online" not in settings:
        del found["online"]
    extended = "online" in settings and "online" not in found
    if (differs := _difference(found, settings, ignored={"online"} if extended else set())) != "":
        raise ValueError(
            f"{directory} holds a run with other settings ({differs}); repeat its command to "
            "continue it, or give another directory with --out"
        )
    differences = environment_differences(record.provenance)
    event = {"event": "continued", "command": list(command), "differences": differences}
    level = logging.WARNING if differences else logging.INFO
    _log.log(level, "continued: %s", "; ".join(differences) or "same", extra={"fields": event})
    if extended:
        write_run(
            directory,
            replace(record, command=list(command), settings=settings, cells=_cells(plan)),
        )


def _cells(plan: Plan) -> list[PlannedCell]:
    return [
        PlannedCell(
            pack.suite,
            cell.domain,
            cell.task_name,
            cell.agent,
            cell.seed,
            {pack.phase: pack.steps},
            pack.name,
            ", ".join(pack.variant),
        )
        for pack in plan.in_order
        for cell in pack.cells
    ]


def _difference(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    place: str = "",
    ignored: frozenset[str] | set[str] = frozenset(),
) -> str:
    """The first setting in which two nested dictionaries differ, in words; empty if none does."""
    for name in {**found, **wanted}:
        here, there = wanted.get(name), found.get(name)
        if here != there and name not in ignored:
            if isinstance(here, dict) and isinstance(there, dict):
                return _difference(there, here, f"{place}{name}.")
            return f"{place}{name}: {there} there, {here} asked for"
    return ""
