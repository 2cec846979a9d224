"""From a task's name to the environment behind it, and to the label of the physics it ran under."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path

from bench.extensions import import_from_here

__all__ = ["environment_id", "load_simulators"]


def environment_id(task_name: str) -> str:
    """Return the gymnasium id of the environment that a task is played in.

    OGBench names a task after its data set (``cube-single-play-singletask-task1-v0``), while the
    environment knows nothing of the data (``cube-single-singletask-task1-v0``). Ids that are
    registered with gymnasium, and ids of the form ``module:id``, stay as they are; the module may
    lie in the current folder, which then stays on the path for what it imports later and for
    processes that are started here.

    Args:
        task_name: An OGBench data-set or single-task name, or any gymnasium id.

    Returns:
        The registered id.

    Raises:
        ValueError: If no such environment is registered; the nearest names are given.
    """
    import gymnasium

    load_simulators()
    module, separator, registered = task_name.rpartition(":")
    if separator:
        try:
            import_from_here(module)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"task {task_name!r}: the module {module!r} that should register it cannot be "
                f"imported ({error}), not from {Path.cwd()} either; expected '<importable "
                "module>:<environment id>'"
            ) from error
    candidates = (registered, *_without_dataset(registered))
    for candidate in candidates:
        if candidate in gymnasium.registry:
            return candidate
    known = list(gymnasium.registry)
    near = difflib.get_close_matches(candidates[-1], known, n=3, cutoff=0.6)
    near = [f"{module}{separator}{name}" for name in near]
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    yours = "" if separator else " (module:id where a module of yours registers it)"
    raise ValueError(
        f"unknown task {task_name!r}: expected an OGBench task such as "
        f"'cube-single-play-singletask-task1-v0' or a registered gymnasium id{yours}{hint}"
    )


def load_simulators() -> None:
    """Import OGBench with its simulators, which registers its environments with gymnasium."""
    importlib.import_module("ogbench")


def _without_dataset(name: str) -> tuple[str, ...]:
    """Return OGBench's environment name for a data-set name, if it has the form of one."""
    parts = name.split("-")
    if "singletask" in parts and parts.index("singletask") > 1:
        place = parts.index("singletask")
        return ("-".join(parts[: place - 1] + parts[place:]),)
    if len(parts) > 3:
        return ("-".join(parts[:-2] + parts[-1:]),)
    return ()
