"""The `bench` command: one module per subcommand, imported when it is asked for."""

import difflib
import importlib
import os
import sys
from dataclasses import is_dataclass
from typing import Protocol, get_args, get_origin, get_type_hints

from bench.errors import BenchError

__all__ = ["main"]

# Module and class of every command, and what `bench --help` says of it: listing the commands must
# import none of them.
_COMMANDS: dict[str, tuple[str, str, str]] = {
    "offline": ("offline", "Offline", "pretrain, fine-tune and evaluate a suite or your own data"),
    "online": ("online", "Online", "continue the offline result in the environments"),
    "sweep": ("sweep", "Sweep", "the offline phase at every point of a grid of settings"),
    "ablate": ("ablate", "Ablate", "compare parts of TRQAM with what they replace"),
    "data": ("data", "Data", "list, get, generate, verify and import data sets"),
    "report": ("report", "Report", "tables, figures and one HTML page from runs"),
    "export": ("export", "Export", "a policy as a torch.export program and an ONNX graph"),
    "status": ("status", "Status", "how far runs are"),
    "compare": ("compare", "Compare", "which of two runs is better, and what was set otherwise"),
    "reproduce": ("reproduce", "Reproduce", "the command that made a run, and what differs here"),
    "video": ("video", "Video", "episodes of a trained policy, drawn"),
    "speed": ("speed", "Speed", "updates per second against the limit of the machine"),
    "plan": ("plan", "Plan", "hours that a suite takes on a device"),
    "agents": ("agents", "Agents", "the methods and their settings"),
}


class _Command(Protocol):
    def run(self) -> int: ...


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status.

    0 is success, 1 a run that failed in part or as a whole, 2 bad input, 130 an interruption.
    Errors are one line on standard error; ``--debug`` (or BENCH_DEBUG=1) adds the traceback.
    """
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given or os.environ.get("BENCH_DEBUG") == "1"
    given = [argument for argument in given if argument != "--debug"]
    if not given or given[0] in ("-h", "--help"):
        print(_help(), file=sys.stdout if given else sys.stderr)
        return 0 if given else 2
    try:
        return _parsed(given[0], given[1:]).run()
    except (ValueError, BenchError, OSError) as error:
        if debug:
            raise
        print(f"error: {_text(error)}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130


def _help() -> str:
    """What `bench --help` prints."""
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, _, summary) in _COMMANDS.items()]
    return "\n".join(
        [
            "usage: bench COMMAND [OPTIONS]; `bench COMMAND --help` explains a command",
            "",
            *lines,
            "",
            "--debug with any of them shows where an error comes from",
        ]
    )


def _parsed(name: str, arguments: list[str]) -> _Command:
    """The command with its options, of which tyro explains those that it refuses.

    Raises:
        ValueError: there is no such command, or an option is given twice or without a value.
    """
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=3, cutoff=0.5)
        hint = f"perhaps you meant {' or '.join(near)}" if near else "see `bench --help`"
        raise ValueError(f"unknown command {name!r}; {hint}")
    import tyro

    module, kind, _ = _COMMANDS[name]
    command: type[_Command] = getattr(importlib.import_module(f"bench.cli.{module}"), kind)
    given = _gathered(arguments, _lists(command))
    return tyro.cli(command, prog=f"bench {name}", args=given)


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
