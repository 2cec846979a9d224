"""Files that are whole or absent: written to a temporary name, flushed, renamed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["atomic_path", "flush_directory", "flush_file", "read_json", "write_bytes", "write_json"]


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
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        yield temporary
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
    """Reads what `write_json` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON; the text names the file.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
