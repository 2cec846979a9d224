"""Small rearrangements that several reports share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

__all__ = ["final_rates", "flat_settings", "is_task", "method_label", "task_label"]


def method_label(agent: str, variant: str | None) -> str:
    """Agent with its variant, as tables and figures name it."""
    return f"{agent} [{variant}]" if variant else agent


def task_label(task: str) -> str:
    """A task's name; of OGBench's without what is the same in all of them."""
    if "-singletask" not in task:
        return task
    return task.removesuffix("-v0").replace("-singletask", "")


def is_task(name: str, text: str) -> bool:
    """Whether a text stands for a task: its name, the end of it, or its number.

    A task of the user's own, whose name has no number, has the number 1.
    """
    ends = (f"-{text}", f"-{text}-v0", f"-task{text}-v0", f":{text}", f":{text}-v0")
    return name == text or name.endswith(ends) or (text == "1" and "-singletask" not in name)


def final_rates(cells: pl.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Method to task to the final success rates of its runs, in order of the seeds.

    Args:
        cells: finished rows of `cell_results`, all of one phase (or of methods that differ in it).
    """
    rates: dict[str, dict[str, list[float]]] = {}
    for row in cells.sort("task", "seed").iter_rows(named=True):
        method = rates.setdefault(method_label(row["agent"], row["variant"]), {})
        method.setdefault(row["task"], []).append(row["success_rate"])
    return rates


def flat_settings(document: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested plain data as dotted names and texts: `{"a": {"b": 1}}` is `{"a.b": "1"}`."""
    flat: dict[str, str] = {}
    for name, value in document.items():
        if isinstance(value, Mapping):
            flat |= flat_settings(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            flat[f"{prefix}{name}"] = ", ".join(map(str, value))
        else:
            flat[f"{prefix}{name}"] = str(value)
    return flat
