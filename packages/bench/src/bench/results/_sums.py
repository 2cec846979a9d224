"""The SHA-256 that a result table carries in its own footer.

Table and sum are one file, so that a kill at any moment leaves both or neither. The sum is an entry
of the metadata in the parquet footer, which other readers skip, and is taken over every byte of the
file with its own digits as zeros. Tables of version 0.1 have none.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from bench.errors import ResultsError

__all__ = ["METADATA", "damaged", "has_sum", "require_whole", "with_sum"]

_OPENS, _CLOSES = b"sha256 of this table: ", b" (its digits as zeros)"
_BLANK = b"0" * 64
METADATA = {"trqam-bench": (_OPENS + _BLANK + _CLOSES).decode()}
_WRITTEN = re.compile(re.escape(_OPENS) + b"([0-9a-f]{64})" + re.escape(_CLOSES))


def with_sum(content: bytes) -> bytes:
    """A parquet file that was written with `METADATA`, its sum filled in."""
    place = content.rindex(_OPENS + _BLANK) + len(_OPENS)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:place] + digest + content[place + len(digest) :]


def has_sum(content: bytes) -> bool:
    """Whether a table was written with a sum; half of its frame is enough to say so."""
    return _OPENS in content or _CLOSES in content


def require_whole(path: Path, content: bytes) -> None:
    """Refuses a table whose sum is not that of its bytes.

    Raises:
        ResultsError: it is damaged; says what to do.
    """
    if not has_sum(content):
        return
    found = list(_WRITTEN.finditer(content))
    if found:
        place, end = found[-1].span(1)
        digest = hashlib.sha256(content[:place] + _BLANK + content[end:]).hexdigest().encode()
        if digest == found[-1][1]:
            return
    raise damaged(path, "its bytes do not match its SHA-256")


def damaged(path: Path, reason: str) -> ResultsError:
    """The error of a table that cannot be used."""
    return ResultsError(
        f"the table {path} is damaged: {reason}; put a copy back, or move it away: the rows in it "
        "are then missing from reports, and the command that makes it goes on with new ones"
    )
