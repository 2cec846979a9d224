"""What a run directory is for: written when it begins, compared when it goes on."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from bench.training.existing_packs import holds_results
from bench.training.run_plan import Plan

__all__ = ["planned_cells", "record_plan"]

_SHOWN = 3

_log = logging.getLogger(__name__)


def record_plan(plan: Plan, command: Sequence[str]) -> None:
    """Write what a plan's directory is for, or refuse one that holds another run.

    A directory takes more agents, seeds, tasks and the online phase, in packs of their own, as long
    as what it holds has the settings that are asked for. The last phase may be made longer. One in
    which nothing has been trained yet is taken over.

    Raises:
        ValueError: the directory holds a run with other settings.
    """
    directory = plan.directory
    # Through JSON, as the settings on disk went: tuples are lists there.
    settings: dict[str, Any] = json.loads(json.dumps(plan.settings()))
    asked = RunRecord(list(command), settings, {}, planned_cells(plan))
    results = holds_results(directory)
    if results and not (directory / "run.json").exists():
        raise ValueError(
            f"{directory} holds trained runs but no run.json, which records its settings and "
            "data; restore it, or set another directory with --out"
        )
    if not results:
        _begin(asked, plan)
        return
    record = read_run(directory)
    longer = _is_longer(record.settings, settings)
    if not longer and _deciding(record, asked) != _deciding(asked, record):
        differs = _differences(record, asked)
        raise ValueError(
            f"{directory} holds a run with other settings ({differs}); repeat its command to "
            "continue it, or set another directory with --out"
        )
    differences = environment_differences(record.provenance)
    event = {"event": "continued", "command": list(command), "differences": differences}
    level = logging.WARNING if differences else logging.INFO
    _log.log(level, "continued: %s", "; ".join(differences) or "same", extra={"fields": event})
    if longer or not record.packs.keys() >= asked.packs.keys():
        write_run(directory, _joined(record, asked))


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
    same["largest_pack"] = wanted["largest_pack"]  # packs stay as they are
    return bool(same == {k: v for k, v in wanted.items() if online or k != "online"})


def _deciding(record: RunRecord, other: RunRecord) -> dict[str, Any]:
    """What decides a record's numbers, of all that another one has too.

    Runs of one method differ in nothing but task and seed. How runs are packed decides nothing.
    """
    settings = {k: v for k, v in record.settings.items() if k not in ("largest_pack", "packs")}
    if "online" in settings:
        settings["online"] = settings["online"]["protocol"]
    if "online" not in other.settings:
        settings.pop("online", None)
    return {
        **settings,
        "methods": {m: v for m, v in _methods(record) if m in dict(_methods(other))},
    }


def _methods(record: RunRecord) -> list[tuple[str, Any]]:
    """What the packs of each method, data set and phase have in common."""
    online = record.settings.get("online", {}).get("packs", {})
    found: list[tuple[str, Any]] = []
    for name, pack in record.packs.items():
        common = {k: v for k, v in pack.items() if k not in ("tasks", "seeds")}
        method = [name in online, pack["agent"], pack["dataset"], pack.get("variant", "")]
        found.append((json.dumps(method), common))
    return found


def _joined(record: RunRecord, more: RunRecord) -> RunRecord:
    """A record with the packs of another one beside its own."""
    settings = {**record.settings, **more.settings}
    settings["packs"] = {**record.settings["packs"], **more.settings["packs"]}
    online = [r.settings["online"] for r in (record, more) if "online" in r.settings]
    if online:
        packs = {name: pack for part in online for name, pack in part["packs"].items()}
        settings["online"] = {**online[0], **online[-1], "packs": packs}
    cells = [cell for cell in record.cells if cell.pack not in more.packs]
    whole = not cells  # the command makes all that there is
    return replace(
        record,
        command=more.command if whole else record.command,
        further=[] if whole else [*record.further, more.command],
        settings=settings,
        cells=[*cells, *more.cells],
    )


def _begin(asked: RunRecord, plan: Plan) -> None:
    provenance = collect_provenance(asked.command, device=str(plan.device))
    _log.info("begun", extra={"fields": {"event": "begun", "provenance": provenance}})
    write_run(plan.directory, replace(asked, provenance=provenance))


def planned_cells(plan: Plan) -> list[PlannedCell]:
    """The runs of a plan, as its directory's record lists them."""
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


def _differences(found: RunRecord, wanted: RunRecord) -> str:
    """The first settings in which two runs differ, by the options that set them."""
    differing, only_one = setting_differences(found, wanted)
    for name in ("phases", "--pack", "seeds", "tasks", "--agent"):  # a directory takes more of them
        differing.pop(name, None)
    named = [f"{name}: {a} there, {b} asked for" for name, (a, b) in differing.items()]
    # What has no option of its own is in the record all the same.
    named = named or [", ".join(names) for names in only_one if names] or ["see its run.json"]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return "; ".join(named[:_SHOWN]) + more
