"""Files that are whole or absent: written to a temporary name, flushed, renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.errors import RunDirectoryLostError
from bench.storage._untrusted import printable

__all__ = [
    "atomic_path",
    "flush_directory",
    "flush_file",
    "hold_directory",
    "read_json",
    "release_directory",
    "remove_leftovers",
    "require_held",
    "temporary_path",
    "write_bytes",
    "write_json",
]

# Host, process, chance; version 0.1 had no host.
_TEMPORARY = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d+)-[0-9a-f]{8}\.tmp")
_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_OTHER_HOSTS_SECONDS = 24 * 3600.0
_LARGEST_JSON = 256 * 2**20
_held: dict[Path, int] = {}
_issued: set[str] = set()


def hold_directory(directory: Path) -> None:
    """Notices from now on when `directory` is renamed, deleted or replaced.

    Everything that is written below it is written through `atomic_path` or asks `require_held`,
    which then refuse: a new directory of the old name would hold half a run.
    """
    place = directory.absolute()
    release_directory(place)
    # Open, so that no other directory can be given its number.
    _held[place] = os.open(place, os.O_RDONLY | os.O_DIRECTORY)


def release_directory(directory: Path) -> None:
    """Ends what `hold_directory` began."""
    if (handle := _held.pop(directory.absolute(), None)) is not None:
        os.close(handle)


def require_held(path: Path) -> None:
    """Refuses to write below a held directory that is no longer where it was.

    Raises:
        RunDirectoryLostError: it was renamed, deleted or replaced.
    """
    place = path.absolute()
    for directory, handle in tuple(_held.items()):  # threads write too
        if place.is_relative_to(directory):
            try:
                found = directory.stat()
            except OSError:
                found = None
            if found is None or not os.path.samestat(found, os.fstat(handle)):
                what = "is gone" if found is None else "is another directory now"
                raise RunDirectoryLostError(
                    f"{directory} {what}: it was renamed or deleted while a process works in it; "
                    "the process stops here. If it was renamed, give it its name back (or the new "
                    "one with --out) and repeat the command to continue"
                )


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path` that no two processes share."""
    name = f".{path.name}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    _issued.add(name)
    return path.with_name(name)


def remove_leftovers(directory: Path) -> None:
    """Removes temporary files at and below `directory` of processes that were killed.

    Those of living processes stay, and those of another host until they are a day old.
    """
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            if (match := _TEMPORARY.fullmatch(name)) is None:
                continue
            path = Path(folder) / name
            if _is_abandoned(path, match[1], int(match[2])):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _is_abandoned(path: Path, host: str | None, process: int) -> bool:
    if host not in (None, _HOST):
        try:
            return time.time() - path.stat().st_mtime > _OTHER_HOSTS_SECONDS
        except OSError:
            return False
    if process == os.getpid():  # in a container every process may have this number
        return path.name not in _issued
    try:
        os.kill(process, 0)
    except PermissionError:
        return False
    except (ProcessLookupError, OverflowError):
        return True
    return False


def flush_directory(directory: Path) -> None:
    """Makes a rename inside `directory` survive a power cut.

    Raises:
        OSError: the system could not flush it.
    """
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_file(path: Path) -> None:
    """Makes what was written to a file survive a power cut."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary path; on a clean exit it becomes `path`, otherwise it is removed.

    The temporary file lies beside `path` (a rename across file systems is not atomic) under a
    hidden name that no two processes share. A reader sees the old file or the new one, never a
    part; a process killed here leaves the old file and at most one hidden temporary file.

    Raises:
        OSError: the directory or the file cannot be written; `path` is then unchanged.
        RunDirectoryLostError: see `require_held`.
    """
    require_held(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        yield temporary
        require_held(path)
        flush_file(temporary)
        os.replace(temporary, path)  # noqa: PTH105 - the tests inject faults into os.replace
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_directory(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes `content` to `path` as a whole.

    Raises:
        OSError: as `atomic_path`.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, document: Any) -> None:
    """Writes plain data as readable JSON (two spaces, keys in the given order).

    Raises:
        TypeError: `document` holds something that JSON cannot express.
        OSError: as `atomic_path`.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def read_json(path: Path) -> Any:
    """Reads what `write_json` wrote, every text in it as `plain_text`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a regular file, too large, or not JSON; the text names the file.
    """
    found = path.stat()
    if not path.is_file() or found.st_size > _LARGEST_JSON:
        raise ValueError(
            f"{path} is no file of at most {_LARGEST_JSON >> 20} MiB, so it is not read"
        )
    try:
        return printable(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
