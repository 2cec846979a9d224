"""The names under which OGBench publishes data with observations of numbers or pixels."""

import difflib
from itertools import product

from bench.data._names import DatasetName

_MAZES = {
    "pointmaze": (("medium", "large", "giant", "teleport"), ("navigate", "stitch")),
    "antmaze": (("medium", "large", "giant", "teleport"), ("navigate", "stitch", "explore")),
    "humanoidmaze": (("medium", "large", "giant"), ("navigate", "stitch")),
    "antsoccer": (("arena", "medium"), ("navigate", "stitch")),
}
_TABLES = (
    *(f"cube-{size}" for size in ("single", "double", "triple", "quadruple", "octuple")),
    "scene",
    *(f"puzzle-{size}" for size in ("3x3", "4x4", "4x5", "4x6")),
)


def published_stems() -> set[str]:
    """Names without size and version, such as `cube-double-play`."""
    mazes = {
        f"{body}-{size}-{kind}"
        for body, (sizes, kinds) in _MAZES.items()
        for size, kind in product(sizes, kinds)
    }
    stems = mazes | {f"{table}-{kind}" for table, kind in product(_TABLES, ("play", "noisy"))}
    powder = {f"powderworld-{size}-play" for size in ("easy", "medium", "hard")}
    return stems | {f"visual-{stem}" for stem in stems} | powder


def published_kinds(environment: str) -> tuple[str, ...]:
    """Kinds of data that are published of an environment such as `antmaze-large`."""
    names = {kind for _, kinds in _MAZES.values() for kind in kinds} | {"play", "noisy"}
    stems = published_stems()
    return tuple(kind for kind in sorted(names) if f"{environment}-{kind}" in stems)


def check_published(name: DatasetName) -> None:
    """Refuse a dataset that nobody publishes, before any source is asked for it.

    Raises:
        ValueError: naming the nearest that are published.
    """
    stems = published_stems()
    if name.stem in stems:
        return
    near = difflib.get_close_matches(name.stem, sorted(stems), n=3, cutoff=0.6)
    hint = f": perhaps {' or '.join(f'{stem}-{name.version}' for stem in near)}" if near else ""
    raise ValueError(
        f"no source publishes '{name}'{hint}; --source URL adds an address that has it"
    )
