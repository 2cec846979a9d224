"""Episodes out of the tables of a recognised layout: read, checked, cut."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float64

from bench.data._check import check_actions
from bench.data._errors import DataDamaged
from bench.data._flags import (
    read_column,
    read_flags,
    read_joined,
    read_leaf,
    read_matrix,
    read_numbers,
)
from bench.data._layout import Table
from bench.data._tree import Leaf
from bench.simulation import ArrayTree

_ROUNDING = 1e-5  # Of the largest magnitude in a column: what float32 and unit conversions leave.
_NOISE = 0.05  # Of the same: jumps that are this small are no jumps between episodes.

Bounds = tuple[Float64[np.ndarray, "..."], Float64[np.ndarray, "..."]]
"""Lowest and highest action of the source, a number or one for each entry."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode of L transitions.

    Attributes:
        observations: (L + 1, O), the final one included; by name where leaves were kept apart.
        actions: (L, A), in [-1, 1].
        rewards: (L,); None where there are none.
        terminated: whether the episode ended in a terminal state rather than being cut off.
        left_out: transitions behind these whose next state is not in the file: 0 or 1.
    """

    observations: ArrayTree
    actions: Float[np.ndarray, "steps act"]
    rewards: Float[np.ndarray, " steps"] | None
    terminated: bool
    left_out: int = 0


def read_actions(
    leaf: Leaf, bounds: Bounds | None, *, as_stored: bool = False
) -> Float[np.ndarray, "rows act"]:
    """Actions scaled to [-1, 1], as float32.

    Args:
        leaf: the actions as stored.
        bounds: what becomes -1 and 1; None for actions that are in [-1, 1] already.
        as_stored: leave them as they are, wherever they lie.

    Raises:
        DataDamaged: for actions outside the range, naming file and row.
        ValueError: if bounds are of another width, or needed.
    """
    if as_stored:
        return read_matrix(leaf)
    advice = "say which range they come from, with --env ID or --action-range LOWEST HIGHEST"
    if bounds is None and leaf.dtype.kind in "iub":
        raise ValueError(
            f"{leaf.file}: '{leaf.key}' holds {leaf.dtype}: numbers of a discrete action space "
            f"cannot be trained on; if they are quantised, {advice}"
        )
    actions = read_numbers(leaf).astype(np.float64)
    if bounds is not None:
        low, high = bounds
        if low.ndim and len(low) != actions.shape[1]:
            raise ValueError(
                f"{leaf.file}: '{leaf.key}' has {actions.shape[1]} entries in a row, the action "
                f"range {len(low)}"
            )
        if not ((low == -1).all() and (high == 1).all()):
            actions = 2 * (actions - low) / (high - low) - 1
        advice = f"scaled from the range {' to '.join(str(bound.tolist()) for bound in bounds)}"
    try:
        check_actions(leaf.file, actions, key=leaf.key)
    except DataDamaged as error:
        raise DataDamaged(f"{error} ({advice})") from None
    return np.clip(actions, -1, 1).astype(np.float32)


def read_episodes(
    path: Path,
    tables: Sequence[Table],
    bounds: Bounds | None,
    *,
    leaves: bool = False,
    as_stored: bool = False,
) -> Iterator[Episode]:
    """Read the tables of a file and cut them into episodes.

    A table with a state more than actions is one episode. In the others every row is a transition,
    and an episode ends where flags say so, or where the next observation is not, up to rounding,
    that of the next row. Where there are no next observations, the last transition of an episode
    that was cut off is left out, as its next state is not in the file; one into a terminal state is
    kept, as no value follows it.

    Args:
        path: the file, for messages.
        tables: of its layout.
        bounds: as of `read_actions`.
        leaves: observations stay dictionaries of leaves, where they are such; else they are joined.
        as_stored: as of `read_actions`.

    Raises:
        DataDamaged: naming file, array and row.
        ValueError: for what the file leaves open; names the option that decides it.
    """
    for table in tables:
        place = f"{path}/{table.name}" if table.name else str(path)
        states = _read_states(place, table, table.observations, leaves)
        actions = read_actions(table.actions, bounds, as_stored=as_stored)
        rewards = None if table.rewards is None else read_column(table.rewards)
        terminals, ends = _ends(place, table, len(actions))
        lengths = {"actions": len(actions), "terminals": len(terminals), "ends": len(ends)}
        lengths |= {} if rewards is None else {"rewards": len(rewards)}
        rows = len(next(iter(states.values())))
        if len(set(lengths.values())) > 1 or rows - len(actions) not in (0, 1):
            raise DataDamaged(f"{place}: lengths differ: observations {rows}, {lengths}")
        if len(actions) == 0:
            raise DataDamaged(f"{place}: the arrays have no rows")
        if table.has_final_state:
            inner = np.flatnonzero(ends[:-1])
            if len(inner):
                raise DataDamaged(
                    f"{place}: row {inner[0]} is flagged as an end, in the middle of an episode of "
                    f"{len(actions)} transitions"
                )
            yield Episode(_as_observed(states), actions, rewards, bool(terminals[-1]))
            continue
        follows = None
        if table.next_observations:
            follows = _read_states(place, table, table.next_observations, leaves)
            shapes = [{n: leaf.shape for n, leaf in tree.items()} for tree in (follows, states)]
            if shapes[0] != shapes[1]:
                raise DataDamaged(
                    f"{place}: 'next_observations' has shape {_shown(shapes[0])}, 'observations' "
                    f"{_shown(shapes[1])}"
                )
            ends[:-1] |= _jumps(place, table, states, follows, ends)
        ends[-1] = True
        yield from _cut(states, follows, actions, rewards, terminals, ends)


def _read_states(
    place: str, table: Table, given: Sequence[Leaf], leaves: bool
) -> dict[str, np.ndarray]:
    """Observations by name; joined ones, and those that are one array, have an empty name."""
    if not leaves:
        return {"": read_joined(given)}
    names = replace(table, observations=tuple(given)).observation_names()
    if len(given) == 1 and names == [given[0].key.removeprefix(f"{table.name}/")]:
        names = [""] if not names[0].startswith("observation.") else names
    found = {name: read_leaf(leaf) for name, leaf in zip(names, given, strict=True)}
    if len({len(leaf) for leaf in found.values()}) > 1:
        counts = ", ".join(f"'{name}' {len(leaf)}" for name, leaf in found.items())
        raise DataDamaged(f"{place}: lengths differ: {counts}")
    return dict(sorted(found.items()))


def _as_observed(leaves: dict[str, np.ndarray]) -> ArrayTree:
    return leaves.get("", leaves)


def _shown(shapes: dict[str, tuple[int, ...]]) -> str:
    return str(shapes.get("", shapes))


def _ends(
    place: str, table: Table, rows: int
) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """True ends, and ends of either kind, as far as flags tell."""
    if table.single and table.terminals is not None:
        terminals = np.arange(rows) == (rows - 1 if bool(table.terminals.read()) else rows)
        return terminals, terminals.copy()
    none = np.zeros(rows, bool)
    terminals = none if table.terminals is None else read_flags(table.terminals)
    timeouts = none if table.timeouts is None else read_flags(table.timeouts)
    ends = none if table.ends is None else read_flags(table.ends)
    lengths = {"terminals": len(terminals), "timeouts": len(timeouts), "ends": len(ends)}
    if set(lengths.values()) != {rows}:
        raise DataDamaged(f"{place}: lengths differ: actions {rows}, {lengths}")
    both = np.flatnonzero(terminals & timeouts)
    if table.done and table.terminals is not None and len(both):
        key = table.terminals.key
        raise ValueError(
            f"{place}: row {both[0]} is marked by '{key}' and as cut off: give --terminals {key} "
            f"if '{key}' marks true ends, or --terminals none --timeouts {key} if it marks ends of "
            "either kind and none of them is a true one"
        )
    if table.ends is not None and (stray := np.flatnonzero(terminals & ~ends)).size:
        raise DataDamaged(f"{place}: row {stray[0]} is terminal but '{table.ends.key}' is 0 there")
    if table.masks is not None:
        masks = read_flags(table.masks)
        if len(masks) != rows or (differ := np.flatnonzero(masks == terminals)).size:
            row = 0 if len(masks) != rows else differ[0]
            raise DataDamaged(
                f"{place}: 'masks' contradicts the flags of true ends in row {row}: expected 0 "
                "exactly where an episode ends in a terminal state; remove one of the two"
            )
    return terminals, terminals | timeouts | ends


def _jumps(
    place: str,
    table: Table,
    states: dict[str, np.ndarray],
    follows: dict[str, np.ndarray],
    ends: np.ndarray,
) -> Bool[np.ndarray, " rows-1"]:
    """Where the next observation is not that of the next row, beyond what rounding explains."""
    floats = [leaf.dtype for leaf in table.observations if leaf.dtype.kind == "f"]
    floats += [leaf.dtype for leaf in table.next_observations if leaf.dtype.kind == "f"]
    coarsest = max((float(np.finfo(kind).eps) for kind in floats), default=0.0)
    # Vectors tell where episodes end, where there are any; images would take long to compare.
    vectors = {n for n, leaf in states.items() if leaf.ndim == 2} or set(states)
    gaps = np.max([_gaps(states[n], follows[n]) for n in sorted(vectors)], axis=0)
    jumps: Bool[np.ndarray, " rows-1"] = gaps > max(_ROUNDING, 4 * coarsest)
    within = ~ends[:-1]
    torn = jumps & within
    if torn.sum() > max(10, within.sum() / 2) and np.median(gaps[torn]) < _NOISE:
        raise ValueError(
            f"{place}: the next observations of {torn.sum():,} of {within.sum():,} rows differ "
            f"from the observations of the following rows by a little "
            f"({np.median(gaps[torn]):.2g} of their range): give --next-observations none to cut "
            "episodes by their flags alone"
        )
    return jumps


def _gaps(states: np.ndarray, follows: np.ndarray) -> Float[np.ndarray, " rows-1"]:
    """How far each next observation is from that of the next row, in ranges of its columns."""
    if states.dtype.kind != "f":
        differ: np.ndarray = (follows[:-1] != states[1:]).reshape(len(states) - 1, -1).any(axis=1)
        return differ.astype(float)
    states, follows = (rows.reshape(len(rows), -1) for rows in (states, follows))
    scale = np.maximum(np.abs(states).max(axis=0), np.finfo(np.float32).tiny)
    return np.asarray((np.abs(follows[:-1] - states[1:]) / scale).max(axis=1, initial=0.0))


def _cut(
    states: dict[str, np.ndarray],
    follows: dict[str, np.ndarray] | None,
    actions: np.ndarray,
    rewards: np.ndarray | None,
    terminals: np.ndarray,
    ends: np.ndarray,
) -> Iterator[Episode]:
    start = 0
    for end in np.flatnonzero(ends):
        stop = int(end) + 1
        path = {name: leaf[start:stop] for name, leaf in states.items()}
        steps = stop - start - 1
        if follows is not None or terminals[end]:
            # The terminal state itself may not be in the file; no value is ever taken of it.
            last = states if follows is None else follows
            path = {n: np.concatenate([leaf, last[n][end][None]]) for n, leaf in path.items()}
            steps += 1
        yield Episode(
            _as_observed(path),
            actions[start : start + steps],
            None if rewards is None else rewards[start : start + steps],
            bool(terminals[end]),
            stop - start - steps,
        )
        start = stop
