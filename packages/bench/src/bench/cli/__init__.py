"""The `bench` command: one module per subcommand, which imports what is heavy when it runs."""

import os
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Protocol, get_args, get_origin, get_type_hints

import tyro

from bench.cli.ablate import Ablate
from bench.cli.agents import Agents
from bench.cli.compare import Compare
from bench.cli.data import Data
from bench.cli.export import Export
from bench.cli.offline import Offline
from bench.cli.online import Online
from bench.cli.plan import Plan
from bench.cli.report import Report
from bench.cli.reproduce import Reproduce
from bench.cli.speed import Speed
from bench.cli.status import Status
from bench.cli.sweep import Sweep
from bench.cli.video import Video
from bench.errors import BenchError

__all__ = ["main"]


class _Command(Protocol):
    def run(self) -> int: ...


_COMMANDS: dict[str, Callable[..., _Command]] = {
    "offline": Offline,
    "online": Online,
    "sweep": Sweep,
    "ablate": Ablate,
    "data": Data,
    "report": Report,
    "export": Export,
    "status": Status,
    "compare": Compare,
    "reproduce": Reproduce,
    "video": Video,
    "speed": Speed,
    "plan": Plan,
    "agents": Agents,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status.

    0 is success, 1 a run that failed in part or as a whole, 2 bad input, 130 an interruption.
    Errors are one line on standard error; ``--debug`` (or BENCH_DEBUG=1) adds the traceback.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given or os.environ.get("BENCH_DEBUG") == "1"
    given = [argument for argument in given if argument != "--debug"]
    try:
        given = _gathered(given, _lists(_COMMANDS.get(given[0])) if given else set())
        command: _Command = tyro.extras.subcommand_cli_from_dict(
            _COMMANDS, prog="bench", args=given
        )
        return command.run()
    except (ValueError, BenchError, OSError) as error:
        if debug:
            raise
        print(f"error: {_text(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130


def _text(error: Exception) -> str:
    """An error in words: of the system's errors, what it was about and what was wrong."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    return str(error)


def _lists(kind: object) -> set[str]:
    """The options of a command, and of its subcommands, that take several values."""
    if not is_dataclass(kind):
        return {option for part in get_args(kind) for option in _lists(part)}
    found = set()
    for name, hint in get_type_hints(kind).items():
        if tuple in (get_origin(hint), *map(get_origin, get_args(hint))):
            found.add(f"--{name.replace('_', '-')}")
        found |= _lists(hint)
    return found


def _gathered(arguments: list[str], lists: set[str]) -> list[str]:
    """The arguments with the values of a repeated option together, as after a single one.

    `--set a=1 --set b=2` means `--set a=1 b=2`; tyro would take the last one alone. `--over` is
    left as it is.

    Raises:
        ValueError: an option that takes one value is given again, or one that takes several is
            given none.
    """
    parts: list[list[str]] = [[]]
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, value = argument.partition("=")
            parts.append([name.replace("_", "-"), *([value] if equals else [])])
        else:
            parts[-1].append(argument)
    gathered: list[list[str]] = []
    places: dict[str, int] = {}
    for part in parts:
        if len(part) == 1 and part[0] in lists:
            raise ValueError(f"{part[0]} was given without a value")
        if part and part[0] in places and part[0] != "--over":
            if part[1:] and part[0] not in lists:
                raise ValueError(f"{part[0]} is given twice; give it once")
            gathered[places[part[0]]] += part[1:]
        else:
            places[part[0] if part else ""] = len(gathered)
            gathered.append(part)
    return [argument for part in gathered for argument in part]
