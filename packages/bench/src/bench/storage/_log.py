"""Logging of a run: short lines for people, JSON lines for programs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import note_log
from bench.storage._untrusted import plain_text, printable

__all__ = ["JsonLinesHandler", "log_to", "read_log"]


class JsonLinesHandler(logging.Handler):
    """Appends one JSON object per record: time, level, logger, message, and the `fields` extra.

    `logger.info("evaluated", extra={"fields": {"step": 500}})` adds `"step": 500`. Each line is
    one append of the operating system, so several processes may share a file. A line torn by a
    kill is closed off when the file is opened again. A file that cannot be written (disk full)
    is reported once on standard error and never stops the work that is being logged.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._reported = False
        if _ends_torn(self._handle):
            self._append(b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info is not None:
            document["exception"] = logging.Formatter().formatException(record.exc_info)
        document |= getattr(record, "fields", {})
        self._append((json.dumps(document, default=str, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        with self.lock or contextlib.nullcontext():
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
        super().close()

    def _append(self, line: bytes) -> None:
        if self._handle is None:
            return
        try:
            os.write(self._handle, line)
        except OSError as error:
            if not self._reported:
                self._reported = True
                print(f"warning: the log {self.path} is incomplete: {error}", file=sys.stderr)


class _Console(logging.Handler):
    """Warnings and errors on standard error, wherever that leads at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            return  # the exception itself is on its way
        kind = "error" if record.levelno >= logging.ERROR else "warning"
        print(f"{kind}: {plain_text(record.getMessage())}", file=sys.stderr)


@contextlib.contextmanager
def log_to(path: Path, level: int = logging.INFO, logger: str = "bench") -> Iterator[None]:
    """Sends what `logger` and its children say to a JSON-lines file while the block runs.

    Warnings and errors are said on standard error too: nobody reads a log that nothing points to.
    An exception that leaves the block is logged with its traceback, and said by whoever catches it.

    Raises:
        OSError: the file cannot be opened.
    """
    handler = JsonLinesHandler(path)
    handler.setLevel(level)
    source = logging.getLogger(logger)
    console = _Console(logging.WARNING)
    source.addHandler(console)
    previous = source.level
    source.addHandler(handler)
    if source.getEffectiveLevel() > level:
        source.setLevel(level)
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit, SystemExit):
        raise
    except BaseException as error:  # polars' PanicException is none of Exception
        source.error("%s: %s", type(error).__name__, error, exc_info=error)
        note_log(error, path)
        raise
    finally:
        source.removeHandler(handler)
        source.removeHandler(console)
        source.setLevel(previous)
        handler.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; torn ones (a kill while writing) are left out.

    Raises:
        OSError: the file cannot be read.
    """
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            records.append(printable(record))
    return records


def _ends_torn(handle: int) -> bool:
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
