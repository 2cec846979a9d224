"""The manifest of a checkpoint: what it contains, and the sums that prove it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.errors import FormatVersionError
from bench.storage._untrusted import printable

__all__ = ["DamagedError", "Manifest", "file_sum", "read_manifest", "require_plain"]

FORMAT = "trqam-bench checkpoint"
FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"


class DamagedError(Exception):
    """A checkpoint that must not be used, and why. Never leaves `bench.storage`."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Contents of `manifest.json`.

    Attributes:
        step: training step of the checkpoint.
        files: for each file its length in bytes and its SHA-256.
        metadata: the caller's plain data.
    """

    step: int
    files: dict[str, tuple[int, str]]
    metadata: dict[str, Any]

    def to_bytes(self) -> bytes:
        """The one byte string that this manifest is stored as, its own sum included."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "written_by": f"trqam-bench {_own_version()}",
            "step": self.step,
            "files": {
                name: {"bytes": size, "sha256": digest}
                for name, (size, digest) in self.files.items()
            },
            "metadata": self.metadata,
        }
        return _serialise(document | {"sha256": _sum_of(document)})


def file_sum(path: Path) -> tuple[int, str]:
    """Length and SHA-256 of a file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return stream.tell(), digest


def require_plain(value: Any, where: str) -> None:
    """Checks that `value` comes back from JSON with every key and type a reader expects.

    Tuples are accepted and come back as lists; not-a-number and infinities are kept.

    Raises:
        ValueError: a key that is no string, or a value that is no plain data; names the place.
    """
    if isinstance(value, dict):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r}; keys must be strings")
            require_plain(entry, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, entry in enumerate(value):
            require_plain(entry, f"{where}[{index}]")
    elif value is not None and type(value) not in (bool, int, float, str):
        raise ValueError(
            f"{where} is a {type(value).__name__}; metadata may hold dict, list, str, int, "
            "float, bool and None (tensors belong into `tensors`)"
        )


def read_manifest(directory: Path) -> Manifest:
    """Reads and proves the manifest of one checkpoint.

    Raises:
        DamagedError: it is missing, unreadable or not the bytes that were written.
        FormatVersionError: a newer format; the text names the version that wrote it.
    """
    path = directory / MANIFEST_NAME
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{MANIFEST_NAME} cannot be read ({error.strerror})") from error
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{MANIFEST_NAME} is not JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise DamagedError(f"{MANIFEST_NAME} is no manifest of a checkpoint")
    recorded = document.pop("sha256", None)
    # Comparing the bytes too leaves no place, not even white space, where a flip goes unnoticed.
    if recorded != _sum_of(document) or _serialise(document | {"sha256": recorded}) != content:
        raise DamagedError(f"{MANIFEST_NAME} does not match its own SHA-256")
    if document["format_version"] != FORMAT_VERSION:
        raise FormatVersionError(
            f"{directory} has checkpoint format {document['format_version']}, this version reads "
            f"{FORMAT_VERSION}; it was written by {document.get('written_by')}, which can read it"
        )
    try:
        files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in document["files"].items()
        }
        return Manifest(int(document["step"]), files, printable(dict(document["metadata"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{MANIFEST_NAME} lacks an entry ({error})") from error


def _serialise(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def _sum_of(document: dict[str, Any]) -> str:
    return hashlib.sha256(_serialise(document)).hexdigest()


def _own_version() -> str:
    try:
        return version("trqam-bench")
    except PackageNotFoundError:
        return "unknown"
