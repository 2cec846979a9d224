"""What can be wrong with data, as exceptions whose text a user can act on."""

from bench.errors import BenchError


class DataMissing(ValueError):  # noqa: N818 (the name says what happened, as FileNotFoundError does)
    """A dataset is not on disk; the message says where it was looked for and how to get it."""


class DataDamaged(ValueError):  # noqa: N818
    """A data file cannot be used; the message names the file, the array and the row."""


class DownloadFailed(BenchError):  # noqa: N818
    """No source gave a data file; the message lists what was tried."""
