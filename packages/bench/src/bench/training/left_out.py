"""Packs that cannot be trained, while the others go on."""

import logging
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import BenchError
from bench.failures import in_words, is_foreseen, is_interruption
from bench.training.cells import Pack
from bench.training.run_plan import Plan

__all__ = ["LeftOut", "PackFailedError", "pack_failure"]

_log = logging.getLogger(__name__)


class PackFailedError(BenchError):
    """One pack cannot be trained; the text says why."""


def pack_failure(error: BaseException, pack: Pack, log: Path) -> PackFailedError:
    """The error of one pack, for one that ended its training.

    Args:
        error: what nobody foresaw, or a checkpoint of runs that were stopped.
        pack: which was trained.
        log: of the run, which gets the traceback.

    Raises:
        BaseException: the error itself where it ends all packs: an interruption, a lost directory,
            a full disk, input that cannot be used.
    """
    if isinstance(error, PackFailedError):
        return error
    # Exits, Ctrl-C and the like are no errors; polars' PanicException is no Exception either.
    if isinstance(error, SystemExit | GeneratorExit) or is_interruption(error):
        raise error
    if is_foreseen(error):
        raise error
    text = in_words(error)
    _log.info("%s: %s", pack.name, text, exc_info=error)
    return PackFailedError(f"{text} (traceback: {log})")


@dataclass(slots=True)
class LeftOut:
    """The packs of a plan that were left out, and those that would start from them.

    Attributes:
        plan: what is trained.
        problems: a line per pack, for people.
    """

    plan: Plan
    problems: list[str] = field(default_factory=list, init=False)
    _names: set[str] = field(default_factory=set, init=False)

    def add(self, pack: Pack, reason: str) -> None:
        """Leave a pack out, and say so."""
        self._names.add(pack.name)
        self.problems.append(f"{pack.name} was left out: {reason}")
        _log.error("%s; the other packs go on", self.problems[-1])

    def reject(self, pack: Pack) -> bool:
        """Whether a pack starts from one that was left out; then it is left out as well."""
        missing = sorted(self.plan.required(pack) & self._names)
        if missing:
            self.add(pack, f"it starts from {missing[0]}")
        return bool(missing)
