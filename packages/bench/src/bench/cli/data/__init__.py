"""`bench data`: make, download, import, list, look at and verify datasets."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from bench.cli.data._bringing import Get, Import
from bench.cli.data._looking import Inspect, List, Verify
from bench.cli.data._making import Generate, Measure, TrainExpert

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
            raise  # Who was reading the output has gone, as `head` does: no matter of folders.
        except OSError as error:
            from bench.data import folder_error

            raise folder_error(error) from error
