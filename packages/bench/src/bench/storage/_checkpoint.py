"""Checkpoints: tensors and plain data, proved by SHA-256, replaced as a whole.

Layout: `<directory>/step-000000123/{manifest.json,tensors.safetensors}`. safetensors does not
notice a flipped byte and `torch.load` executes pickle, hence the sums and the format.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError
from bench.storage._atomic import (
    atomic_path,
    flush_directory,
    flush_file,
    remove_leftovers,
    require_held,
    temporary_path,
)
from bench.storage._manifest import (
    MANIFEST_NAME,
    DamagedError,
    Manifest,
    file_sum,
    read_manifest,
    require_plain,
)

if TYPE_CHECKING:
    import torch

__all__ = [
    "Checkpoint",
    "checkpoint_steps",
    "has_checkpoints",
    "load_checkpoint",
    "part",
    "save_checkpoint",
    "write_tensors",
]

TENSORS_NAME = "tensors.safetensors"
# A second save of the same step moves the first aside as `.replaced` until the new one is in place.
_NAME = re.compile(r"step-(\d{9,})(\.replaced)?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every byte was checked.

    Attributes:
        step: training step at which it was saved.
        tensors: name to tensor, on the device that was asked for.
        metadata: the plain data given to `save_checkpoint` (tuples come back as lists).
        path: directory it was read from.
        passed_over: newer checkpoints that were damaged and not used.
    """

    step: int
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]
    path: Path
    passed_over: tuple[Path, ...] = field(default=())


def save_checkpoint(
    directory: Path,
    step: int,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    keep: int = 2,
) -> Path:
    """Saves a checkpoint and then removes all but the `keep` newest.

    Everything is written and flushed under a temporary name and appears by one rename, so a
    process killed at any moment leaves the previous checkpoints as they were. If anything
    fails, the temporary files are removed and nothing is pruned.

    Args:
        directory: where the checkpoints of one pack lie; made if missing.
        step: training step, not negative.
        tensors: any device, dtype and layout; views and shared storage are allowed.
        metadata: plain data (dict, list, str, int, float, bool, None).
        keep: how many checkpoints to keep, at least 1.

    Returns:
        The directory of the new checkpoint.

    Raises:
        ValueError: `step`, `keep` or `metadata` is not acceptable.
        CheckpointError: it could not be written (disk full, read-only, quota).
    """
    if step < 0 or keep < 1:
        raise ValueError(f"step must be >= 0 and keep >= 1, given step={step}, keep={keep}")
    plain = dict(metadata)
    require_plain(plain, "metadata")
    from safetensors import SafetensorError

    final = directory / f"step-{step:09d}"
    temporary = temporary_path(final)
    require_held(final)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory)
        _write_files(temporary, step, tensors, plain)
        _put_in_place(temporary, final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        kept = checkpoint_steps(directory)
        intact = f"the checkpoint of step {kept[-1]} is intact" if kept else "there is none before"
        raise CheckpointError(
            f"the checkpoint of step {step} could not be saved in {directory}: {error}; {intact}"
        ) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(directory, step, keep)
    return final


def load_checkpoint(
    directory: Path, *, device: str = "cpu", set_aside: bool = True
) -> Checkpoint | None:
    """Loads the newest checkpoint that is whole.

    A damaged one is never loaded: it is named in a warning, renamed to `<name>.damaged` (so that
    it neither counts as one of those kept nor is met again), and the next older one is tried.
    No byte of any file is executed.

    Args:
        directory: as in `save_checkpoint`.
        device: where the tensors go.
        set_aside: rename damaged checkpoints; False only reads.

    Returns:
        The checkpoint, or None if there has never been one.

    Raises:
        CheckpointError: there are checkpoints, but none can be used.
        FormatVersionError: the newest was written in a format of another version.
    """
    passed_over: list[Path] = []
    for path in _candidates(directory):
        try:
            checkpoint = _load_one(path, device)
        except DamagedError as reason:
            if not path.exists():  # the writer pruned it while we were reading
                continue
            _log.warning("damaged checkpoint %s: %s; it is not used", path, reason)
            passed_over.append(_set_aside(path) if set_aside else path)
            continue
        if passed_over:
            _log.warning("continuing from the last good checkpoint, step %d", checkpoint.step)
        return Checkpoint(
            checkpoint.step,
            checkpoint.tensors,
            checkpoint.metadata,
            path,
            tuple(passed_over),
        )
    # Those that an earlier call has set aside are as much a reason to ask: whoever repeats the
    # command (a queue, say) has not decided to start over.
    if damaged := sorted({path.name for path in (*passed_over, *_damaged(directory))}):
        raise CheckpointError(
            f"every checkpoint in {directory} is damaged ({', '.join(damaged)}) and nothing can "
            "continue from there; put a copy back, or remove that directory to start over"
        )
    return None


def checkpoint_steps(directory: Path) -> list[int]:
    """Steps of the checkpoints in `directory`, ascending, without opening them."""
    return sorted({_step_of(path) for path in _candidates(directory)})


def has_checkpoints(directory: Path) -> bool:
    """Whether there are checkpoints in `directory`, damaged ones included."""
    return bool(_candidates(directory) or _damaged(directory))


def _damaged(directory: Path) -> list[Path]:
    return [path for path in directory.glob("step-*.damaged") if path.is_dir()]


def _load_one(path: Path, device: str) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = read_manifest(path)
    if manifest.step != _step_of(path):
        raise DamagedError(f"it says that it is of step {manifest.step}")
    if set(manifest.files) != {TENSORS_NAME}:
        raise DamagedError(f"it lists the files {sorted(manifest.files)}")
    tensors_path = path / TENSORS_NAME
    try:
        found = file_sum(tensors_path)
    except OSError as error:
        raise DamagedError(f"{TENSORS_NAME} cannot be read ({error.strerror})") from error
    size, digest = manifest.files[TENSORS_NAME]
    if found[0] != size:
        raise DamagedError(f"{TENSORS_NAME} has {found[0]:,} bytes instead of {size:,}")
    if found[1] != digest:
        raise DamagedError(f"{TENSORS_NAME} does not match its SHA-256")
    try:
        tensors = load_file(tensors_path, device=device)
    except SafetensorError as error:
        raise DamagedError(f"{TENSORS_NAME} is no safetensors file ({error})") from error
    except (OSError, RuntimeError) as error:
        if tensors_path.exists():
            raise
        # Pruned by the writer since its sum was taken; torch and safetensors each raise their own.
        raise DamagedError(f"{TENSORS_NAME} is gone") from error
    return Checkpoint(manifest.step, tensors, manifest.metadata, path)


def part(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors as one safetensors file, which is whole or not there.

    Args:
        path: of the file; its folder is made if missing.
        tensors: as of :func:`save_checkpoint`.
    """
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        save_file(_separate(tensors), temporary)


def _write_files(
    temporary: Path, step: int, tensors: Mapping[str, torch.Tensor], metadata: dict[str, Any]
) -> None:
    from safetensors.torch import save_file

    temporary.mkdir()
    save_file(_separate(tensors), temporary / TENSORS_NAME)
    sums = {TENSORS_NAME: file_sum(temporary / TENSORS_NAME)}
    (temporary / MANIFEST_NAME).write_bytes(Manifest(step, sums, metadata).to_bytes())
    for name in (TENSORS_NAME, MANIFEST_NAME):
        flush_file(temporary / name)
    flush_directory(temporary)


def _separate(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous host tensors, no two of which share storage (safetensors refuses those)."""
    separate: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        host = tensor.detach().cpu().contiguous()
        storage = host.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != host.numel() * host.element_size():
            host = host.clone()
        seen.add(host.untyped_storage().data_ptr())
        separate[name] = host
    return separate


def _put_in_place(temporary: Path, final: Path) -> None:
    if final.exists():
        # A directory cannot be replaced by rename. Killed between the two renames, the old one
        # is still found under its second name.
        aside = final.with_name(f"{final.name}.replaced")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(final, aside)  # noqa: PTH105
        try:
            os.replace(temporary, final)  # noqa: PTH105
        except BaseException:
            os.replace(aside, final)  # noqa: PTH105
            raise
    else:
        os.replace(temporary, final)  # noqa: PTH105 - the tests inject faults into os.replace
    flush_directory(final.parent)


def _prune(directory: Path, step: int, keep: int) -> None:
    # Later steps than the one just saved are another time line's; they are met and replaced when
    # this run gets there, and must not push good checkpoints out.
    present = [path for path in _candidates(directory) if _step_of(path) <= step]
    whole = [path for path in present if path.suffix != ".replaced"]
    doomed = [path for path in present if path.suffix == ".replaced"] + whole[keep:][::-1]
    for path in doomed:
        # Renamed first, so that nobody who reads meanwhile sees half a checkpoint.
        hidden = temporary_path(path)
        try:
            os.replace(path, hidden)  # noqa: PTH105
        except OSError as error:
            _log.warning("old checkpoint %s could not be removed: %s", path, error)
            continue
        shutil.rmtree(hidden, ignore_errors=True)


def _candidates(directory: Path) -> list[Path]:
    """Checkpoint directories, newest first, a replaced one after its replacement."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (-_step_of(path), path.suffix == ".replaced"))


def _step_of(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged")
    try:
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(path, aside)  # noqa: PTH105
    except OSError:
        return path  # a directory that we may not write: it was named, that must do
    return aside
