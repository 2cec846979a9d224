"""What the settings in a `run.json` say about its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.experiment import DualSettings, Phase, is_cloning
from bench.recorded import added_defaults, recorded
from bench.storage import RunRecord
from bench.suites import SUITES, OnlineProtocol, Suite, TrainingProtocol

__all__ = ["joined_differences", "packs_without_budget", "protocol_differences"]

# How often is logged, saved and evaluated changes no final number.
_COUNTED = (
    "batch_size",
    "pretrain_steps",
    "offline_steps",
    "episodes",
    "chunks",
    "standardise",
    "random_shift",
)
_BETWEEN = "; "


def protocol_differences(record: RunRecord) -> dict[str, str]:
    """In what each pack was trained or measured otherwise than its suite says.

    Agent settings are not the protocol's: they are what runs are made to compare.

    Returns:
        Pack to differences, "" where there is none. Without what nothing can be told of: everything
        for a suite of the user's own data or a record without settings, a pack that does not name
        its data set and differs in nothing else.
    """
    name = record.settings.get("suite")
    if name not in SUITES or "protocol" not in record.settings:
        return {}
    domains = {cell.pack: cell.domain for cell in record.cells}
    found = {}
    for pack, settings, phase in _packs(record.settings):
        if pack in domains:
            differences = _differences(
                SUITES[name], record.settings, domains[pack], settings, phase
            )
            text = _BETWEEN.join(differences)
            if text or settings.get("dataset") is not None:
                found[pack] = text
    return found


def joined_differences(texts: Iterable[str]) -> str:
    """Differences of several packs as one text, each once, in order."""
    return _BETWEEN.join(
        dict.fromkeys(part for text in texts for part in text.split(_BETWEEN) if part)
    )


def packs_without_budget(record: RunRecord) -> set[str]:
    """Packs whose lambda is held fixed: their KL budget is a number that nothing reads."""
    return {
        pack
        for pack, entry, _ in _packs(record.settings)
        if DualSettings.of(entry.get("settings", {})).holds_lambda
    }


def _packs(settings: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Name, entry and phase of every pack."""
    for name, entry in settings.get("packs", {}).items():
        yield name, entry, Phase.PRETRAIN if is_cloning(entry.get("agent", "")) else Phase.OFFLINE
    for name, entry in settings.get("online", {}).get("packs", {}).items():
        yield name, entry, Phase.ONLINE


def _differences(
    suite: Suite, settings: Mapping[str, Any], domain: str, pack: Mapping[str, Any], phase: str
) -> Iterator[str]:
    usual = added_defaults(TrainingProtocol) | recorded(suite.protocol)
    usual_online = usual.pop("online")
    # Before an online phase a suite may want another number of offline updates than by themselves.
    before_online = usual_online.pop("offline_steps")
    found = settings["protocol"] | pack.get("protocol", {})
    goes_on = "online" in settings and before_online is not None
    if goes_on and (phase == Phase.ONLINE or found.get("offline_steps") == before_online):
        usual["offline_steps"] = before_online
    for name in _COUNTED:
        unread = name == "offline_steps" and phase == Phase.PRETRAIN
        if name in found and found[name] != usual[name] and not unread:
            yield _difference(name, found[name], usual[name])
    if phase == Phase.ONLINE:
        usual_online = added_defaults(OnlineProtocol) | usual_online
        played = added_defaults(OnlineProtocol) | settings["online"]["protocol"]
        for name, value in played.items():
            if name in usual_online and value != usual_online[name]:
                yield _difference(f"online_{name}", value, usual_online[name])
    if domain not in {known.name for known in suite.domains}:
        yield "another domain"
    elif pack.get("dataset") not in {None, suite.domain(domain).dataset}:
        yield "data of another size"


def _difference(name: str, found: object, usual: object) -> str:
    return f"{name.replace('_', ' ')} {_shown(found)} instead of {_shown(usual)}"


def _shown(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:,}" if number else str(value)
