"""The options of a command from the fields of its dataclass, and its values from their texts."""

import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NoReturn

from bench.cli._values import Kind, kind_of, values_of
from bench.experiment import current_flags
from bench.suites import nearest

__all__ = ["Option", "build", "options_of", "show_help"]


@dataclass(frozen=True, slots=True)
class Option:
    """One field of a command.

    Attributes:
        name: of the field.
        kind: what its values are.
        positional: whether it is given without its name.
        required: whether it has no default.
        aliases: further flags that mean it.
        metavar: what errors call it where it is positional.
    """

    name: str
    kind: Kind
    positional: bool
    required: bool
    aliases: tuple[str, ...] = ()
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """As it is typed, and as errors call it."""
        text = self.name.replace("_", "-")
        return (self.metavar or text.upper()) if self.positional else f"--{text}"


def options_of(kind: type[Any]) -> list[Option]:
    """The options of a command, in the order of its fields."""
    import tyro

    hints = typing.get_type_hints(kind, include_extras=True)
    found: list[Option] = []
    for entry in fields(kind):
        if not entry.init:
            continue
        hint: Any = hints[entry.name]
        marks: list[Any] = []
        if typing.get_origin(hint) is typing.Annotated:
            hint, *marks = typing.get_args(hint)
        aliases = [a for mark in marks for a in getattr(mark, "aliases", None) or ()]
        metavar = next(filter(None, (getattr(mark, "metavar", None) for mark in marks)), None)
        required = entry.default is MISSING and entry.default_factory is MISSING
        positional = tyro.conf.Positional in marks
        found.append(
            Option(entry.name, kind_of(hint), positional, required, tuple(aliases), metavar)
        )
    return found


def build(kind: type[Any], arguments: Sequence[str], prog: str) -> Any:
    """The command with the values that were typed.

    Values of an option may be apart (`--agent trqam qam`), joined by commas, or given with the
    option repeated.

    Raises:
        ValueError: an option or argument that there is not, one without a value or given twice, or
            a value of another kind; the text names it and says what was expected.
    """
    options = options_of(kind)
    texts, positional = _sorted(options, current_flags(arguments, kind), prog)
    places = [option for option in options if option.positional]
    texts |= _placed(places, positional, prog)
    values: dict[str, Any] = {}
    for option in options:
        if option.name in texts:
            values[option.name] = values_of(option.flag, option.kind, texts[option.name])
        elif option.required and not option.kind.many:
            raise ValueError(f"{prog} needs {option.flag}; {prog} --help explains it")
        elif option.required:
            values[option.name] = ()
    return kind(**values)


def show_help(kind: type[Any], prog: str) -> NoReturn:
    """Print the options of a command and what they mean."""
    import tyro

    registry = tyro.constructors.ConstructorRegistry()

    @registry.primitive_rule
    def optional(info: Any) -> Any:
        """Options without a value by default are shown by what they may be given."""
        rest = [a for a in typing.get_args(info.type) if a is not types.NoneType]
        if len(rest) == len(typing.get_args(info.type)) or info.type_origin is None:
            return None
        make = tyro.constructors.PrimitiveTypeInfo.make
        of = tyro.constructors.ConstructorRegistry.get_primitive_spec
        union: Any = typing.Union[tuple(rest)]  # noqa: UP007
        inner: Any = of(make(union, info.markers))
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=inner.nargs,
            metavar=inner.metavar,
            instance_from_str=inner.instance_from_str,
            is_instance=lambda value: value is None or inner.is_instance(value),
            str_from_instance=lambda v: ["unset"] if v is None else inner.str_from_instance(v),
            choices=None if inner.choices is None else (*inner.choices, "unset"),
        )

    tyro.cli(kind, prog=prog, args=["--help"], registry=registry)
    raise AssertionError("help ends the program")


def _sorted(
    options: Sequence[Option], arguments: Sequence[str], prog: str
) -> tuple[dict[str, list[str]], list[str]]:
    """The texts of each option that was named, and what stands by itself."""
    named = {flag: o for o in options if not o.positional for flag in (o.flag, *o.aliases)}
    texts: dict[str, list[str]] = {}
    alone: list[str] = []
    queue = list(arguments)
    while queue:
        argument = queue.pop(0)
        if argument == "--":
            alone += queue
            break
        if not argument.startswith("--"):
            alone.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        flag = flag.replace("_", "-")
        positive = f"--{flag.removeprefix('--no-')}"
        option = named.get(flag) or (named.get(positive) if flag.startswith("--no-") else None)
        if option is None or (flag not in named and not option.kind.flag):
            raise ValueError(_unknown(flag, named, prog))
        if option.kind.flag:
            if equals:
                raise ValueError(
                    f"{flag} takes no value, got {value!r}; --no-{flag[2:]} turns it off"
                )
            texts[option.name] = ["yes" if flag in named else "no"]
            continue
        taken = [value] if equals else []
        while queue and not queue[0].startswith("--") and len(taken) < option.kind.most:
            taken.append(queue.pop(0))
        if not taken:
            raise ValueError(f"{flag} was given without a value")
        if option.name in texts and not option.kind.many:
            raise ValueError(f"{flag} was given twice")
        texts.setdefault(option.name, []).extend(taken)
    return texts, alone


def _placed(places: Sequence[Option], texts: list[str], prog: str) -> dict[str, list[str]]:
    """What stands by itself, to the positional options in their order."""
    found: dict[str, list[str]] = {}
    for option in places:
        taken, texts = texts[: option.kind.most], texts[option.kind.most :]
        if taken:
            found[option.name] = taken
    if texts:
        known = f"it takes {' '.join(option.flag for option in places)}; " if places else ""
        raise ValueError(
            f"{prog} does not take {texts[0]!r}: {known}options begin with -- (see {prog} --help)"
        )
    return found


def _unknown(flag: str, named: dict[str, Option], prog: str) -> str:
    near = nearest(flag, named)
    hint = f"perhaps you meant {' or '.join(near)}; " if near else ""
    return f"{prog} has no option {flag}; {hint}{prog} --help lists them"
