"""Settings of a run under the names by which its user gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bench.experiment import (
    CLONING,
    OfflineRequest,
    OnlineRequest,
    flag,
    is_cloning,
    recorded_options,
    setting_options,
)
from bench.recorded import FORMER, added_defaults
from bench.results._scores import flat_settings, method_label
from bench.storage import RunRecord
from bench.suites import OnlineProtocol

__all__ = ["method_pairs", "setting_differences"]

_OPTIONS = recorded_options(OfflineRequest, OnlineRequest)
_OF_TASK = {
    name.removeprefix("task."): option
    for name, option in _OPTIONS.items()
    if name.startswith("task.")
}
_OWN_OPTION = {option.name: flag(name) for name, option in setting_options(OfflineRequest).items()}
_ONLINE_OPTION = {
    option.name: flag(name)
    for name, option in setting_options(OnlineRequest).items()
    if name not in setting_options(OfflineRequest)
}

_TODAY = {former: today for today, former in FORMER.items()}

_Values = dict[str, dict[str, str]]
"""Setting to domain to value."""


def setting_differences(
    first: RunRecord, second: RunRecord
) -> tuple[dict[str, tuple[str, str]], tuple[list[str], list[str]]]:
    """What the users of two runs set otherwise, by option; an agent's settings as `--set name`.

    Settings of an agent are compared where both runs have it, or between the single agents of both,
    then those that both have.

    Returns:
        Name to the value in the first and in the second, differing ones only; and the names that
        only the first, or only the second, has recorded.
    """
    found = _pairs(*(_of_the_run(record) for record in (first, second)))
    ours, theirs = _of_methods(first), _of_methods(second)
    pairs = method_pairs(ours, theirs)
    alone = sum(not is_cloning(one) for one, _ in pairs) == 1
    for one, other in pairs:
        suffix = "" if alone and not is_cloning(one) else f", {one}"
        for name in {**ours[one], **theirs[other]}:
            if one == other or (name in ours[one] and name in theirs[other]):
                a, b = ours[one].get(name, {}), theirs[other].get(name, {})
                found |= _by_domain(f"{name}{suffix}", a, b)
    differing: dict[str, tuple[str, str]] = {}
    only_first: list[str] = []
    only_second: list[str] = []
    for name, (mine, yours) in found.items():
        if yours is None:
            only_first.append(name)
        elif mine is None:
            only_second.append(name)
        elif mine != yours:
            differing[name] = (mine, yours)
    return differing, (only_first, only_second)


def method_pairs(ours: Iterable[str], theirs: Iterable[str]) -> list[tuple[str, str]]:
    """Which methods are compared: those of the same name, or the single ones of both sides."""
    ours, theirs = set(ours), set(theirs)
    pairs = [(name, name) for name in sorted(ours & theirs)]
    if set(ours & theirs) <= {CLONING}:
        # Cloned policies that others start from are not what a comparison is about.
        one, other = ours - {CLONING}, theirs - {CLONING}
        if len(one) == len(other) == 1:
            pairs.append((one.pop(), other.pop()))
    return pairs


def _of_the_run(record: RunRecord) -> dict[str, str]:
    """All settings but those of agents."""
    # `compiled` is recorded only where it is so.
    settings = {"compiled": False, **record.settings}
    settings.pop("packs", None)
    if "online" in settings:
        protocol = added_defaults(OnlineProtocol) | settings["online"]["protocol"]
        settings["online"] = {"protocol": protocol}
    values = {_OPTIONS.get(name, name): value for name, value in flat_settings(settings).items()}
    learning = [cell for cell in record.cells if not is_cloning(cell.agent)] or list(record.cells)
    packs = record.packs.values()
    task: Mapping[str, Any] = next((pack["task"] for pack in packs if "task" in pack), {})
    values |= {_OF_TASK[name]: str(task[name]) for name in _OF_TASK if name in task}
    listed: dict[str, Iterable[object]] = {
        "--agent": {cell.agent for cell in learning},
        # Not `--seeds` and `--tasks`, which take a count and numbers.
        "seeds": {cell.seed for cell in learning},
        "tasks": {cell.task for cell in learning},
        "phases": {phase for cell in learning for phase in cell.final_steps},
        "data sets": {pack["dataset"] for pack in packs if "dataset" in pack},
    }
    return values | {name: ", ".join(sorted(map(str, of))) for name, of in listed.items()}


def _of_methods(record: RunRecord) -> dict[str, _Values]:
    """Method to its settings by option."""
    domains = {cell.pack: cell.domain for cell in record.cells}
    found: dict[str, _Values] = {}

    def add(pack: str, entry: Mapping[str, Any], values: Mapping[str, str]) -> None:
        method = found.setdefault(method_label(entry["agent"], entry.get("variant")), {})
        for option, value in values.items():
            method.setdefault(option, {})[domains.get(pack, pack)] = value

    for pack, entry in record.settings.get("packs", {}).items():
        if "agent" in entry:
            settings = flat_settings(entry.get("settings", {})).items()
            add(pack, entry, {_option(k): value for k, value in settings})
    for pack, entry in record.settings.get("online", {}).get("packs", {}).items():
        # All else is as in the offline phase.
        settings = entry["settings"]
        again = {o: str(settings[name]) for name, o in _ONLINE_OPTION.items() if name in settings}
        add(pack, entry, again)
    return found


def _option(stored: str) -> str:
    """The option of a setting, by its name in files."""
    return _OWN_OPTION.get(stored) or f"--set {_TODAY.get(stored, stored)}"


def _by_domain(
    label: str, first: Mapping[str, str], second: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """One line if all shared domains have the same two values, else a line for each."""
    pairs = _pairs(first, second)
    shared = {name: values for name, values in pairs.items() if None not in values} or pairs
    if len(set(shared.values())) == 1:
        return {label: next(iter(shared.values()))}
    return {f"{label}, {domain}": values for domain, values in shared.items()}


def _pairs(
    first: Mapping[str, str], second: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    return {name: (first.get(name), second.get(name)) for name in {**first, **second}}
