"""What an import found, in three lines."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from bench.data._episodes import Episode
from bench.data._layout import Layout
from bench.data._tree import Leaf

Arrays = dict[str, Shaped[np.ndarray, "rows ..."]]
"""Arrays of OGBench's layout."""


def describe_layout(layout: Layout) -> str:
    """The layout, and which array was taken for what."""
    parts = [f"{key}" for key in layout.states]
    if layout.tables:
        table = layout.tables[0]
        roles = {
            "observations": "+".join(table.observation_names()),
            "next states": "the next state in each episode" if table.has_final_state else "",
            "true ends": _name(table.name, table.terminals),
            "cut-offs": _name(table.name, table.timeouts or table.ends),
            "rewards": _name(table.name, table.rewards),
        }
        if table.next_observations:
            roles["next states"] = _name(table.name, table.next_observations[0]).split("/")[0]
        parts = [f"{role} {name or 'none'}" for role, name in roles.items()]
    ignored = f"; not read: {', '.join(layout.ignored)}" if layout.ignored else ""
    return f"layout: {layout.name}: {', '.join(parts)}{ignored}"


def _name(table: str, leaf: Leaf | None) -> str:
    return "" if leaf is None else leaf.key.removeprefix(f"{table}/")


def describe_ends(arrays: Arrays, episodes: Sequence[Episode]) -> str:
    """How many episodes there are and how they end."""
    ends = np.flatnonzero(arrays["terminals"])
    lengths = np.diff(ends, prepend=-1) - 1
    text = (
        f"episodes: {len(ends):,} of {lengths.min():,} to {lengths.max():,} transitions, "
        f"{lengths.sum():,} in all"
    )
    if "masks" in arrays:
        masked = ~arrays["masks"] & ~arrays["terminals"]
        text += f"; true ends, masked as no value follows them: {masked.sum():,}"
    left_out = sum(episode.left_out for episode in episodes)
    if left_out:
        text += f"; left out, as the next state is not in the file: {left_out:,}"
    return text


def describe_values(arrays: Arrays) -> str:
    """Widths and ranges of what is learnt from."""
    learnt = ~arrays["terminals"]
    parts = [f"{key} {arrays[key].shape[1]} wide" for key in ("observations", "actions")]
    for key in ("observations", "actions", "rewards"):
        if key in arrays:
            rows = arrays[key][learnt] if key != "observations" else arrays[key]
            parts.append(f"{key} {rows.min():.4g} to {rows.max():.4g}")
    return f"values: {', '.join(parts)}{'' if 'rewards' in arrays else ', no rewards'}"
