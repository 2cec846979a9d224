"""``python -m bench.speed``: the command with nothing but torch installed."""

import argparse
import sys
import types
import typing
from dataclasses import MISSING, fields
from typing import Any

from bench.errors import BenchError
from bench.experiment import current_flags
from bench.speed.request import SpeedRequest

__all__ = ["main", "parse"]


def parse(arguments: list[str] | None = None) -> SpeedRequest:
    """The fields of a request as options."""
    parser = argparse.ArgumentParser("python -m bench.speed", description=SpeedRequest.__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    hints = typing.get_type_hints(SpeedRequest)
    for field in fields(SpeedRequest):
        assert field.default is not MISSING
        kind, many = _element(hints[field.name])
        options: dict[str, Any] = {"default": field.default}
        if typing.get_origin(kind) is typing.Literal:
            options["choices"] = typing.get_args(kind)
        else:
            options["type"] = kind
        if many:
            options["nargs"] = "+"
        parser.add_argument(f"--{field.name.replace('_', '-')}", **options)
    words = sys.argv[1:] if arguments is None else arguments
    given: dict[str, Any] = vars(parser.parse_args(current_flags(words, SpeedRequest)))
    for name, value in given.items():
        given[name] = tuple(value) if isinstance(value, list) else value
    return SpeedRequest(**given)


def main(arguments: list[str] | None = None) -> int:
    """Measure; errors are one line, with the exit status of `bench`."""
    from bench.speed.command import run_speed

    try:
        return run_speed(parse(arguments))
    except (ValueError, BenchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1


def _element(hint: Any) -> tuple[Any, bool]:
    """Type of one value, and whether the option takes several."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return arguments[0], True
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(a for a in arguments if a is not type(None)), False
    return hint, False


if __name__ == "__main__":
    sys.exit(main())
