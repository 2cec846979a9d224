"""From a command line to the command that it names."""

import importlib
import sys
from typing import Any, NoReturn, Protocol, get_args, get_type_hints

from bench.cli._options import build, show_help
from bench.suites import nearest

__all__ = ["COMMANDS", "command_of", "leaves"]


class _Command(Protocol):
    def run(self) -> int: ...


COMMANDS: dict[str, tuple[str, str]] = {
    "offline": ("Offline", "pretrain, fine-tune and evaluate a suite or your own data"),
    "online": ("Online", "continue the offline result in the environments"),
    "sweep": ("Sweep", "the offline phase at every point of a grid of settings"),
    "ablate": ("Ablate", "compare parts of TRQAM with what they replace"),
    "data": ("Data", "list, get, generate, verify and import data sets"),
    "report": ("Report", "tables, figures and one HTML page from runs"),
    "export": ("Export", "a policy as a torch.export program and an ONNX graph"),
    "status": ("Status", "how far runs are"),
    "compare": ("Compare", "which of two runs is better, and what was set otherwise"),
    "reproduce": ("Reproduce", "the command that made a run, and what differs here"),
    "video": ("Video", "episodes of a trained policy, drawn"),
    "speed": ("Speed", "updates per second against the limit of the machine"),
    "plan": ("Plan", "hours that a suite takes on a device"),
    "agents": ("Agents", "the methods and their settings"),
}
"""Class of every command, in the module of the command's name, and what `bench --help` says of it:
listing the commands must import none of them."""


def command_of(arguments: list[str]) -> _Command:
    """The command with its options.

    Raises:
        ValueError: there is no such command or option, or a value is of another kind.
        SystemExit: help or the version was asked for, and has been printed.
    """
    if arguments and arguments[0] in ("--version", "-V"):
        from importlib.metadata import version

        print(f"bench {version('trqam-bench')}")
        raise SystemExit(0)
    name, rest = _chosen("bench", arguments, {name: text for name, (_, text) in COMMANDS.items()})
    kind, prog = _load(name), f"bench {name}"
    parts = _subcommands(kind)
    if not parts:
        return _built(kind, rest, prog)
    name, rest = _chosen(prog, rest, {name: _summary(part) for name, part in parts.items()})
    command: _Command = kind(action=_built(parts[name], rest, f"{prog} {name}"))
    return command


def leaves() -> dict[str, type[Any]]:
    """Every command that can be typed, such as `bench data list`, and its class."""
    found: dict[str, type[Any]] = {}
    for name in COMMANDS:
        parts = _subcommands(_load(name))
        found |= {f"bench {name} {part}": kind for part, kind in parts.items()}
        if not parts:
            found[f"bench {name}"] = _load(name)
    return found


def _load(name: str) -> type[Any]:
    kind: type[Any] = getattr(importlib.import_module(f"bench.cli.{name}"), COMMANDS[name][0])
    return kind


def _subcommands(kind: type[Any]) -> dict[str, type[Any]]:
    """The commands among which the field `action` chooses."""
    if "action" not in getattr(kind, "__dataclass_fields__", {}):
        return {}
    union = get_type_hints(kind, include_extras=True)["action"]
    found: dict[str, type[Any]] = {}
    for part in get_args(get_args(union)[0]):
        leaf, *marks = get_args(part)
        found[next(mark.name for mark in marks if hasattr(mark, "name"))] = leaf
    return found


def _built(kind: type[Any], arguments: list[str], prog: str) -> _Command:
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if {"-h", "--help"} & set(before):
        show_help(kind, prog)
    command: _Command = build(kind, arguments, prog)
    return command


def _chosen(prog: str, arguments: list[str], known: dict[str, str]) -> tuple[str, list[str]]:
    """The first argument, which must be one of the commands, and the others."""
    if not arguments:
        raise ValueError(f"{prog} needs a command: {', '.join(known)} (see {prog} --help)")
    name, *rest = arguments
    if name in ("-h", "--help"):
        _list_commands(prog, known)
    if name not in known:
        near = nearest(name, known)
        hint = f"perhaps you meant {' or '.join(f'{prog} {n}' for n in near)}; " if near else ""
        raise ValueError(f"{prog} has no command {name!r}; {hint}see {prog} --help")
    return name, rest


def _list_commands(prog: str, known: dict[str, str]) -> NoReturn:
    width = max(map(len, known))
    print(f"usage: {prog} COMMAND [OPTIONS]\n")
    for name, summary in known.items():
        print(f"  {name:<{width}}  {summary}")
    print(f"\n{prog} COMMAND --help explains one.", end=" " if prog == "bench" else "\n")
    if prog == "bench":
        print("bench --version prints the version; --debug shows tracebacks.")
    sys.stdout.flush()
    raise SystemExit(0)


def _summary(kind: type[Any]) -> str:
    """First line of what a command says of itself."""
    return (kind.__doc__ or "").strip().partition("\n")[0]
