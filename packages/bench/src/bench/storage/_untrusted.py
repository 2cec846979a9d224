"""What a file may say before it is believed: names that are no paths, text that is only text.

Run directories travel between people. Whoever made one chose every name in it, so each of them is
held against a closed pattern before it becomes part of a path, is printed, or is looked up. Every
reader of `run.json`, of other records and of tables goes through here.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

__all__ = ["plain_text", "printable", "require_count", "require_name"]

# One folder or file name: no separator, no leading dot, nothing that a shell or terminal acts on.
_PART = r"[A-Za-z0-9_][A-Za-z0-9._=+-]{0,254}"
_PATTERNS = {
    "suite": _PART,
    "domain": _PART,
    # Of own data the file, which is read to compare it, at most, and never written.
    "dataset": rf"{_PART}|[^\x00-\x1f\x7f-\x9f]{{1,4096}}\.npz",
    "agent": rf"([^\W\d][\w.]*:)?{_PART}",  # of the user's: module:class
    "pack": _PART,
    "metric": r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]{1,255}",
    "phase": "pretrain|offline|online",
    # Gymnasium's ids: module:namespace/Name-v0.
    "task": r"([^\W\d][\w.]*:)?([\w:-]+/)?[\w:.=+-]{1,255}",
    "variant": rf"({_PART}(, {_PART}){{0,19}})?",
}
_KEPT = "\n\t"


def require_name(kind: str, value: object, where: object) -> str:
    """A name that a file gives, if it is one.

    Args:
        kind: `suite`, `domain`, `dataset`, `agent`, `pack`, `metric`, `phase`, `task` or `variant`.
        value: what the file says.
        where: the file, for the error.

    Raises:
        ValueError: it is no text, or no name of this kind.
    """
    text = isinstance(value, str) and re.fullmatch(_PATTERNS[kind], value) is not None
    if not text or (kind != "dataset" and ".." in str(value)):
        shown = plain_text(repr(value))
        raise ValueError(
            f"{where} gives {shown[:80]} as {kind}, which is no {kind} name; do not use this "
            "directory unless you know who changed it"
        )
    return str(value)


def require_count(name: str, value: object, where: object, *, least: int = 0) -> int:
    """A whole number that a file gives, if it is one that can be.

    Raises:
        ValueError: it is no whole number, below `least`, or of more than 18 digits.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 10**18:
        raise ValueError(
            f"{where} gives {plain_text(repr(value))[:80]} as {name}, expected a whole number from "
            f"{least} on"
        )
    return value


def plain_text(text: str) -> str:
    """Text in which nothing acts on a terminal: control and formatting characters are spelled out.

    Line breaks and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        c if c in _KEPT or c.isprintable() or unicodedata.category(c) == "Zs" else _spelled(c)
        for c in text
    )


def printable(document: Any) -> Any:
    """Plain data with every text in it, keys included, as `plain_text`."""
    if isinstance(document, str):
        return plain_text(document)
    if isinstance(document, list):
        return [printable(entry) for entry in document]
    if isinstance(document, dict):
        return {plain_text(key): printable(entry) for key, entry in document.items()}
    return document


def _spelled(character: str) -> str:
    return character.encode("unicode_escape").decode()
