"""What this process may use of a machine, and how it starts other processes."""

import contextlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import current_process, resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path

__all__ = [
    "available_cores",
    "available_memory",
    "ending",
    "environment_variables",
    "start_process",
    "switch_drawing_off",
    "with_home",
]

_STARTING = threading.Lock()
_UNGUARDED = 78
"""Exit status of a process that was about to start processes while it imported the main module."""

_HELD_BACK = ("SIGINT", "SIGTERM", "SIGHUP")


def available_cores(root: Path = Path("/")) -> int:
    """Number of cores that this process may use: its affinity, and the CPU quotas of its cgroups.

    Half a core of a quota is not counted, but there is always one.

    Args:
        root: of the file systems `proc` and `sys`.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    for group in _cgroups(root, "cpu"):
        quota = _cpu_quota(group)
        if quota is not None:
            cores = min(cores, math.floor(quota))
    return max(1, cores)


def available_memory(root: Path = Path("/")) -> int:
    """Memory that can be taken without harm to others, in bytes, the limits of cgroups included.

    Args:
        root: of the file systems `proc` and `sys`.
    """
    available = 1 << 62
    with contextlib.suppress(OSError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    for group in _cgroups(root, "memory"):
        for limit_name, usage_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
                limit = int((group / limit_name).read_text())
                taken = int((group / usage_name).read_text())
                for line in (group / "memory.stat").read_text().splitlines():
                    name, _, value = line.partition(" ")
                    if name == cache_name:  # page cache, given up when memory is short
                        taken -= int(value)
                available = min(available, max(0, limit - taken))
    return available


def _cgroups(root: Path, controller: str) -> list[Path]:
    """Folders of the cgroups that limit this process, from its own up to the mount's root.

    Slurm and systemd set their limits on nested groups, and every level counts. A container sees
    its own group as the root, whatever `/proc/self/cgroup` calls it.
    """
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    found = [mount, mount / controller]
    for line in lines:
        _, names, path = (*line.split(":", 2), "", "")[:3]
        if names and controller not in names.split(","):
            continue
        # Version 1 mounts a hierarchy per controller or group of them, version 2 a single one,
        # which some systems mount beside those of version 1.
        bases = (mount / controller, mount / names) if names else (mount, mount / "unified")
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        found += [
            base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts), -1, -1)
        ]
    return list(dict.fromkeys(group for group in found if group.is_dir()))


def _cpu_quota(group: Path) -> float | None:
    """Cores' worth of time that a cgroup gets; None where it has no limit."""
    with contextlib.suppress(OSError, ValueError):  # "max 100000" where there is no limit
        quota, period = map(int, (group / "cpu.max").read_text().split())
        return quota / period
    with contextlib.suppress(OSError, ValueError):
        quota = int((group / "cpu.cfs_quota_us").read_text())  # -1 where there is no limit
        period = int((group / "cpu.cfs_period_us").read_text())
        return quota / period if quota > 0 else None
    return None


def with_home(path: str) -> Path:
    """A path with `~` replaced by the home directory.

    Raises:
        ValueError: the home directory is not known, as for a user id without an account.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{path}: there is no home directory here ({error}); set HOME, or give a path without ~"
        ) from error


@contextmanager
def environment_variables(**values: str) -> Iterator[None]:
    """Set variables that libraries read when a process that is started here imports them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def switch_drawing_off() -> None:
    """Keep the simulators of this process from looking for a display, which warns where none is.

    Does nothing where `MUJOCO_GL` is set or dm_control, which reads it, has been imported.
    """
    if "dm_control" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", "disabled")


def start_process(process: BaseProcess, **variables: str) -> None:
    """Start a process of the method `spawn`, with environment variables of its own.

    The process begins with SIGINT, SIGTERM and SIGHUP blocked: they are its parent's to act on
    until it says otherwise. It imports the main module, so that what a script registers is
    registered there too; a main module that is no file (`python -`, a notebook) is left out.

    A script that starts processes outside of ``if __name__ == "__main__"`` would start them again
    in every process that imports it. Such a process ends here, and `ending` tells its parent why.
    """
    if getattr(current_process(), "_inheriting", False):
        raise SystemExit(_UNGUARDED)
    with _STARTING, environment_variables(**variables), _signals_held_back(), _importable_main():
        process.start()


def ending(code: int | None) -> str:
    """Say how a process ended, given its exit status."""
    if code is None:
        return "it closed its pipe"
    if code == _UNGUARDED:
        return (
            "it imported the main script, which starts processes when it is imported: put that "
            'code under `if __name__ == "__main__":`'
        )
    if code < 0:
        out_of_memory = ", usually out of memory" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{out_of_memory}"
    return f"exit code {code}"


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Let a process started inside inherit blocked signals."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python starts this helper with the first process, and unblocks SIGINT after it.
    resource_tracker.ensure_running()
    held = {getattr(signal, name) for name in _HELD_BACK}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _importable_main() -> Iterator[None]:
    """Hide a main module that a new process could not find: standard input has the file <stdin>."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or getattr(main, "__spec__", None) is not None or Path(file).exists():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file
