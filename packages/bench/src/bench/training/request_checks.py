"""What a look at a request alone can refuse: before torch, data or simulators are touched."""

import math
import re
from pathlib import Path

from bench.errors import RunLockedError
from bench.experiment import OfflineRequest, flag, protocol_options, refuse_repeats
from bench.storage import in_use, lock_holder
from bench.suites import suite

__all__ = ["amount_of_bytes", "check_folder", "check_free", "check_request"]

_MOST_SEEDS = 10_000
_MOST_STEPS = 10**12
_COUNTS = ("pack", "processes", "chunk_length")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def check_request(request: OfflineRequest) -> None:
    """Refuse what no plan could be made of.

    Raises:
        ValueError: a number out of its range, an unknown suite, domain or task, a place that cannot
            be used, or an amount that is none; the text names the option.
    """
    refuse_repeats(request, but=("set", "over"))  # whose names are compared, not the whole texts
    for name, option in protocol_options(request).items():
        _require_within(name, getattr(request, name), option.least, min(option.most, _MOST_STEPS))
    for name in _COUNTS:
        _require_within(name, getattr(request, name), 1, _MOST_STEPS)
    if request.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {request.seeds}")
    if request.seeds > _MOST_SEEDS:
        raise ValueError(
            f"--seeds is a count of at most {_MOST_SEEDS:,}, got {request.seeds}; --first-seed "
            "sets the first one"
        )
    if not 0 <= request.first_seed < 10**18:
        raise ValueError(
            f"--first-seed must be at least 0 and of at most 18 digits, got {request.first_seed}"
        )
    check_folder("--out", request.out)
    check_folder("--data-dir", request.data_dir)
    data = None if request.dataset is None else Path(request.dataset)
    if data is not None and data.exists() and not (data.is_file() or data.is_dir()):
        raise ValueError(f"--dataset {data} is not a regular file; give a .npz file, or a name")
    if request.data_memory != "auto":
        amount_of_bytes("--data-memory", request.data_memory)
    if request.dataset is None and request.env is None:
        suite(request.suite or "quick").narrowed(request.domains, request.tasks)


def _require_within(name: str, value: object, least: float, most: float) -> None:
    # Only shares end at 1; everything else is counted.
    if isinstance(value, float) and math.isfinite(value) and most > 1:
        raise ValueError(f"{flag(name)} must be a whole number, got {value}")
    if not isinstance(value, int | float) or least <= value <= most:
        return
    bound = f"at least {least:,}" if not value >= least else f"at most {most:,}"
    raise ValueError(f"{flag(name)} must be {bound}, got {value}")


def check_free(directory: Path) -> None:
    """Refuse a run directory in which another process works, before anything is planned for it.

    Raises:
        RunLockedError: the text names that process.
    """
    if (holder := lock_holder(directory)) is not None:
        raise RunLockedError(in_use(directory, holder))


def check_folder(option: str, path: Path | None) -> None:
    """Refuse a folder that is a file, or would have to lie in one.

    Raises:
        ValueError: it cannot be a folder.
    """
    if path is None:
        return
    there = next((place for place in (path, *path.absolute().parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise ValueError(f"{option} {path}: {there} is a file, expected a folder")


def amount_of_bytes(option: str, text: str) -> int:
    """Bytes of an amount of memory such as `8GB` or `0`.

    Args:
        option: that it was given to, for the error.
        text: a number with one of the units B, KB, MB, GB and TB.

    Raises:
        ValueError: the text is no amount, or has no unit.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]+)?)\s*([kmgt]?)(b?)", text.strip().lower())
    if match is None:
        raise ValueError(f"{option} must be auto or an amount such as 8GB or 0, got {text!r}")
    number, unit, byte = match.groups()
    if not unit and not byte and float(number):
        raise ValueError(f"{option} {text} has no unit; write {text}GB, {text}MB or {text}B")
    return int(float(number) * _UNITS[unit])
