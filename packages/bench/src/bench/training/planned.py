"""What a run directory is for: written when it begins, compared when it goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.results import setting_differences
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

_SHOWN = 3

_log = logging.getLogger(__name__)


def record_plan(plan: Plan, command: Sequence[str]) -> None:
    """Write what a plan's directory is for, or refuse one that holds another run.

    A directory of the offline phase alone may be given an online phase; one that has it may be
    continued by either command. The last phase may be made longer. One in which nothing has been
    trained yet is taken over.

    Raises:
        ValueError: the directory holds a run with other settings.
    """
    directory = plan.directory
    # Through JSON, as the settings on disk went: tuples are lists there.
    settings: dict[str, Any] = json.loads(json.dumps(plan.settings()))
    cells = _cells(plan)
    asked = RunRecord(list(command), settings, {}, cells)
    if not (directory / "run.json").exists():
        _begin(asked, plan)
        return
    record = read_run(directory)
    found = dict(record.settings)
    if "online" in found and "online" not in settings:
        del found["online"]
    added = "online" in settings and "online" not in found
    wanted = {k: v for k, v in settings.items() if not (added and k == "online")}
    if _is_untouched(directory):
        _begin(asked, plan)
        return
    longer = _is_longer(record.settings, settings)
    if found != wanted and not longer:
        differs = _differences(replace(record, settings=found), replace(asked, settings=wanted))
        raise ValueError(
            f"{directory} holds a run with other settings ({differs}); repeat its command to "
            "continue it, or give another directory with --out"
        )
    differences = environment_differences(record.provenance)
    event = {"event": "continued", "command": list(command), "differences": differences}
    level = logging.WARNING if differences else logging.INFO
    _log.log(level, "continued: %s", "; ".join(differences) or "same", extra={"fields": event})
    if added or longer:
        write_run(directory, replace(record, command=list(command), settings=settings, cells=cells))


def _is_longer(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a run differs from one that is asked for by the steps of its last phase alone.

    Training up to some step does not depend on how many follow. An online phase begins where the
    offline one ends, so that one is as long as it is once there is an online phase.
    """
    online = "online" in found
    here = found["online"]["protocol"] if online else found["protocol"]
    there = wanted.get("online", {}).get("protocol") if online else wanted["protocol"]
    name = "steps" if online else "offline_steps"
    if there is None or not here.get(name, 0) < there.get(name, 0):
        return False
    same = json.loads(json.dumps(found))
    (same["online"]["protocol"] if online else same["protocol"])[name] = there[name]
    return bool(same == {k: v for k, v in wanted.items() if online or k != "online"})


def _begin(asked: RunRecord, plan: Plan) -> None:
    provenance = collect_provenance(asked.command, device=str(plan.device))
    _log.info("begun", extra={"fields": {"event": "begun", "provenance": provenance}})
    write_run(plan.directory, replace(asked, provenance=provenance))


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


def _is_untouched(directory: Path) -> bool:
    """Whether there is neither a checkpoint nor a row of a table."""
    packs = directory / "packs"
    return not any(
        file.is_file()
        for kind in ("*.parquet", "checkpoints/step-*/*")
        for file in packs.glob(f"*/{kind}")
    )


def _differences(found: RunRecord, wanted: RunRecord) -> str:
    """The first settings in which two runs differ, by the options that set them."""
    differing, only_one = setting_differences(found, wanted)
    differing.pop("phases", None)
    named = [f"{name}: {a} there, {b} asked for" for name, (a, b) in differing.items()]
    # What has no option of its own is in the record all the same.
    named = named or [", ".join(names) for names in only_one if names] or ["see its run.json"]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return "; ".join(named[:_SHOWN]) + more
