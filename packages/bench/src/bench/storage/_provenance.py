"""Where numbers come from: versions, commit, machine, command line, data."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.errors import MixedOriginError
from bench.storage._run import read_run, write_run

__all__ = [
    "collect_provenance",
    "environment_differences",
    "package_versions",
    "record_data",
    "simulator_label",
]

_PACKAGES = (
    "trqam-flowsde",
    "trqam-adjoint",
    "trqam-trustregion",
    "trqam-qlearn",
    "trqam-bench",
    "torch",
    "numpy",
    "ogbench",
    "gymnasium",
    "mujoco",
    "dm-control",
    "polars",
    "safetensors",
)
_SWITCHES = ("CUDA_VISIBLE_DEVICES", "MUJOCO_GL", "OMP_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG")


def package_versions() -> dict[str, str | None]:
    """Installed versions of the packages that numbers depend on; None where absent."""
    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def simulator_label(mujoco: str | None, ogbench: str | None) -> str:
    """Names the simulator in whose numbers a result is expressed; equal labels may be averaged.

    MuJoCo moves the manipulation arms differently from 3.5 on (3.2.7 to 3.4.0 agree to 1e-9
    after a step), and ogbench times the single-task reward differently since 1.2.
    """

    def series(text: str) -> tuple[int, int]:
        major, minor, *_ = [*text.split("."), "0"]
        return int(major), int(minor)

    try:
        physics = "mujoco<3.5" if series(mujoco or "") < (3, 5) else "mujoco>=3.5"
    except ValueError:
        physics = "mujoco unknown"
    try:
        rewards = "ogbench<1.2" if series(ogbench or "") < (1, 2) else "ogbench>=1.2"
    except ValueError:
        rewards = "ogbench unknown"
    return f"{physics}, {rewards}"


def collect_provenance(
    command: Sequence[str] | None = None,
    *,
    device: str | None = None,
) -> dict[str, Any]:
    """Everything about this process that a reader of its numbers may ask for, as plain data.

    Args:
        command: the command line; this process's if not given.
        device: a torch device; a CUDA one is described.

    Returns:
        `recorded_at`, `command`, `python`, `packages`, `simulator`, `git`, `hardware`,
        `environment` (the few switches that change numbers), `data` (empty: see `record_data`).
    """
    packages = package_versions()
    return {
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(sys.argv if command is None else command),
        "python": platform.python_version(),
        "packages": packages,
        "simulator": simulator_label(packages["mujoco"], packages["ogbench"]),
        "git": _git_state(Path(__file__).resolve()),
        "hardware": _hardware(device),
        "environment": {name: os.environ[name] for name in _SWITCHES if name in os.environ},
        "data": {},
    }


def record_data(directory: Path, dataset: str, origin: Mapping[str, str]) -> None:
    """Notes in `run.json` on which data a run trains, or refuses to go on with other data.

    Args:
        directory: run directory, which the caller has locked.
        dataset: name of the data set.
        origin: `fingerprint`, `source`, and the `folder` where it lies.

    Raises:
        MixedOriginError: the run began with data of another fingerprint.
        ResultsError: `run.json` cannot be read.
    """
    record = read_run(directory)
    known = record.provenance.get("data", {})
    if dataset in known:
        before, now = known[dataset]["fingerprint"], origin["fingerprint"]
        if before != now:
            raise MixedOriginError(
                f"{directory} was begun with {dataset} of fingerprint {before[:12]}, but the files "
                f"in {origin['folder']} have {now[:12]}; bring the former back, or start another "
                "run with --out"
            )
        return
    data = {**known, dataset: dict(origin)}
    write_run(directory, replace(record, provenance=record.provenance | {"data": data}))


def environment_differences(recorded: dict[str, Any]) -> list[str]:
    """What differs between a recorded provenance and this process, one sentence each.

    Args:
        recorded: what `collect_provenance` returned in another process.
    """
    here = collect_provenance([])
    differences = []
    if recorded.get("python") != here["python"]:
        differences.append(f"Python {here['python']} here, {recorded.get('python')} there")
    there = recorded.get("packages", {})
    differences.extend(
        f"{name} {here['packages'].get(name) or 'absent'} here, {there.get(name) or 'absent'} there"
        for name in sorted(set(there) | set(here["packages"]))
        if there.get(name) != here["packages"].get(name)
    )
    commit, other = (source.get("git") or {} for source in (here, recorded))
    if commit.get("commit") != other.get("commit"):
        differences.append(
            f"git commit {commit.get('commit') or 'unknown'} here, "
            f"{other.get('commit') or 'unknown'} there"
        )
    if other.get("modified"):
        differences.append("the run was started from a source tree with uncommitted changes")
    if commit.get("modified"):
        differences.append("the source tree here has uncommitted changes")
    hardware = recorded.get("hardware") or {}
    for key in ("processor", "gpu", "cuda", "torch_threads"):
        ours, theirs = here["hardware"].get(key), hardware.get(key)
        if key in hardware and ours != theirs:
            differences.append(f"{key} {ours or 'none'} here, {theirs} there")
    if "gpu" in here["hardware"] and hardware and "gpu" not in hardware:
        differences.append(f"gpu {here['hardware']['gpu']} here, none there")
    return differences


def _git_state(source: Path) -> dict[str, Any] | None:
    """Commit and cleanliness of the tree that `source` is tracked in; None for a wheel."""
    git = shutil.which("git")
    if git is None:
        return None

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
                [git, "-C", str(source.parent), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # A wheel in an environment inside somebody's repository is not tracked by that repository.
    if ask("ls-files", "--error-unmatch", source.name) is None:
        return None
    status = ask("status", "--porcelain", "--untracked-files=no")
    return {"commit": ask("rev-parse", "HEAD"), "modified": bool(status)}


def _hardware(device: str | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }
    import torch

    described["torch_threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device if device != "cpu" else None)
        described["gpu"] = properties.name
        described["gpu_memory_bytes"] = properties.total_memory
        described["cuda"] = torch.version.cuda
    return described


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
