"""Transitions of OGBench's data sets that have no size in their name. Plain data."""

__all__ = ["size_text", "standard_transitions"]

_MILLION = 1_000_000
_OTHER = {
    "cube-triple-play": 3 * _MILLION,
    "cube-quadruple-play": 5 * _MILLION,
    "cube-triple-noisy": 3 * _MILLION,
    "cube-quadruple-noisy": 5 * _MILLION,
    "puzzle-4x5-noisy": 3 * _MILLION,
    "puzzle-4x6-noisy": 5 * _MILLION,
    "puzzle-4x5-play": 3 * _MILLION,
    "puzzle-4x6-play": 5 * _MILLION,
    "humanoidmaze-medium-navigate": 2 * _MILLION,
    "humanoidmaze-large-navigate": 2 * _MILLION,
    "humanoidmaze-giant-navigate": 2 * _MILLION,
    "humanoidmaze-medium-stitch": 2 * _MILLION,
    "humanoidmaze-large-stitch": 2 * _MILLION,
    "humanoidmaze-giant-stitch": 4 * _MILLION,
    "antmaze-medium-explore": 5 * _MILLION,
    "antmaze-large-explore": 5 * _MILLION,
    "antmaze-teleport-explore": 5 * _MILLION,
    "pointmaze-medium-explore": 5 * _MILLION,
    "pointmaze-large-explore": 5 * _MILLION,
    "pointmaze-teleport-explore": 5 * _MILLION,
}
_UNITS = {"b": 1_000 * _MILLION, "m": _MILLION, "k": 1_000}


def standard_transitions(stem: str) -> int:
    """Training transitions of `<stem>-v0`, such as a million of `cube-double-play-v0`."""
    return _OTHER.get(stem, _MILLION)


def size_text(transitions: int) -> str:
    """A number of transitions as a name has it, such as `100k` or `10m`: exact.

    Raises:
        ValueError: if it is no positive multiple of 1,000, for which there is no name.
    """
    for unit, value in _UNITS.items():
        if transitions >= value and transitions % value == 0:
            return f"{transitions // value}{unit}"
    raise ValueError(f"{transitions} transitions: expected a positive multiple of 1,000")
