"""What can be wrong with data, as exceptions whose text a user can act on."""

import errno

from bench.errors import BenchError

_ELSEWHERE = "give another folder with --data-dir"
_ADVICE = {
    errno.ENOENT: f"check the path, or {_ELSEWHERE}",
    errno.ENOTDIR: f"there is a file where a folder is needed: {_ELSEWHERE}",
    errno.EEXIST: f"there is a file where a folder is needed: {_ELSEWHERE}",
    errno.EISDIR: "there is a folder where a file is needed: move it away",
    errno.EACCES: f"see to its permissions, or {_ELSEWHERE}",
    errno.EPERM: f"see to its permissions, or {_ELSEWHERE}",
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: f"make space and run it again, which continues, or {_ELSEWHERE}",
}
"""What to do about an error of the system."""


def folder_error(error: OSError) -> BenchError:
    """What the system refused in the data folder, with what to do about it."""
    place = "" if error.filename is None else f"{error.filename}: "
    advice = _ADVICE.get(error.errno or 0, "run it again, or elsewhere with --data-dir")
    return BenchError(f"{place}{error.strerror or error}; {advice}")


class DataMissing(ValueError):  # noqa: N818 (the name says what happened, as FileNotFoundError does)
    """A dataset is not on disk; the message says where it was looked for and how to get it."""


class DataDamaged(ValueError):  # noqa: N818
    """A data file cannot be used; the message names the file, the array and the row."""


class DownloadFailed(BenchError):  # noqa: N818
    """No source gave a data file; the message lists what was tried."""
