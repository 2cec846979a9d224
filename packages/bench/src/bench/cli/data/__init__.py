"""`bench data`: make, download, import, list, look at and verify datasets."""

import errno
from dataclasses import dataclass
from typing import Annotated

import tyro

from bench.cli.data._bringing import Get, Import
from bench.cli.data._looking import Inspect, List, Verify
from bench.cli.data._making import Generate, Measure, TrainExpert
from bench.errors import BenchError

__all__ = [
    "Data",
    "Generate",
    "Get",
    "Import",
    "Inspect",
    "List",
    "Measure",
    "TrainExpert",
    "Verify",
]

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


@dataclass(frozen=True)
class Data:
    """Make, download, import, list, look at and verify datasets."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Generate, tyro.conf.subcommand("generate")]
        | Annotated[TrainExpert, tyro.conf.subcommand("expert")]
        | Annotated[Get, tyro.conf.subcommand("get")]
        | Annotated[Import, tyro.conf.subcommand("import")]
        | Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Measure, tyro.conf.subcommand("measure")]
    ]

    def run(self) -> int:
        """Run the action; what the system refuses is said with what to do about it."""
        try:
            return self.action.run()
        except BrokenPipeError:
            return 1  # Who was reading the output has gone, as `head` does.
        except OSError as error:
            place = "" if error.filename is None else f"{error.filename}: "
            advice = _ADVICE.get(error.errno or 0, "run it again, or elsewhere with --data-dir")
            raise BenchError(f"{place}{error.strerror or error}; {advice}") from error
