"""Which layout a file of another origin has, and which of its arrays plays which part.

Only names, types and shapes are looked at here; contents are read in `_episodes`. What the layout
does not say is asked of the user, with the option that answers it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.data._errors import DataDamaged
from bench.data._layout import NONE, Choices, Layout, Table
from bench.data._tree import Leaf, Tree, find, flattened

_NAMES = {
    "observations": ("observations", "obs", "observation"),
    "next_observations": ("next_observations", "next_obs", "next_observation"),
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "terminals": ("terminals", "terminations", "terminated"),
    "timeouts": ("timeouts", "truncations", "truncated"),
    "ends": ("episode_terminals",),
    "masks": ("masks",),
}
_DONE = ("dones", "done")
_RLDS = ("is_terminal", "is_last", "is_first")
_MARKS = (
    *_NAMES["next_observations"],
    *_NAMES["timeouts"],
    *_NAMES["ends"],
    *_NAMES["terminals"][1:],
    *_DONE,
    *_RLDS,
)
"""Arrays that only a table of transitions has: in rows of states they would contradict it."""

_STATES = ("rewards", "masks", "qpos", "qvel", "button_states")


def recognise(path: Path, tree: Tree, choices: Choices, *, ogbench: bool = False) -> Layout:
    """Tell which layout a file has.

    Args:
        path: the file, for messages.
        tree: its arrays.
        choices: what the user says about it.
        ogbench: the data will bear a name as OGBench's have.

    Raises:
        DataDamaged: if arrays are missing or do not go together.
        ValueError: for what the file leaves open; names the option that decides it.
    """
    episodes = _numbered(tree, r"episode_([0-9]+)")
    if episodes:
        tables = [_episode(path, key, _group(path, key, tree[key]), choices) for key in episodes]
        return _layout("episodes (Minari)", tables, tree[episodes[0]], tree, episodes)
    demos = tree.get("data")
    if demos is not None and not isinstance(demos, Leaf) and _numbered(demos, r"demo_([0-9]+)"):
        names = _numbered(demos, r"demo_([0-9]+)")
        tables = [
            _demonstration(path, f"data/{key}", _group(path, key, demos[key]), choices)
            for key in names
        ]
        return _layout("demonstrations (robomimic)", tables, demos[names[0]], tree, ["data"])
    numbers = _numbered(tree, r"observations_([0-9]+)")
    if numbers and "columns" in tree:
        tables = [_d3rlpy(path, tree, key.rpartition("_")[2], choices) for key in numbers]
        return Layout("episodes (d3rlpy)", tuple(tables))
    return _flat(path, tree, choices, ogbench)


def check_rows_of_states(path: Path, keys: Sequence[str]) -> None:
    """Refuse to take a table of transitions for rows of states, whose marked rows are no actions.

    Raises:
        DataDamaged: an array says that the rows are transitions.
    """
    if marks := [key for key in keys if key in _MARKS]:
        raise DataDamaged(
            f"{path} holds {', '.join(marks)}, so its rows are transitions, not the rows of states "
            f"that training reads: `bench data import {path.name} NAME` makes those of it"
        )


def _layout(
    name: str, tables: Sequence[Table], first: "Leaf | Tree", top: Tree, used: Sequence[str]
) -> Layout:
    """The layout of grouped episodes; what is not read is listed as of the first one."""
    names = tables[0].observation_names()
    for table in tables:
        if table.observation_names() != names:
            raise DataDamaged(
                f"{table.actions.file}: '{table.name}' has the observations "
                f"{', '.join(table.observation_names())}, '{tables[0].name}' {', '.join(names)}"
            )
    prefix = f"{tables[0].name}/"
    read = {leaf.key.removeprefix(prefix).split("/")[0] for leaf in tables[0].leaves()}
    inner = [] if isinstance(first, Leaf) else [key for key in first if key not in read]
    outer = [key for key in top if key not in used]
    return Layout(name, tuple(tables), ignored=(*inner, *outer))


def _flat(path: Path, tree: Tree, choices: Choices, ogbench: bool) -> Layout:
    """Arrays at the top: OGBench's rows of states, or transitions."""
    transitions = choices.layout == "transitions" or any(
        _find(path, "", tree, role, choices) is not None or choices.of(role) is not None
        for role in ("next_observations", "timeouts", "ends")
    )
    transitions |= choices.terminals is not None or any(
        key in tree for key in (*_NAMES["terminals"][1:], *_DONE, *_RLDS)
    )
    rows_of_states = "terminals" in tree and (
        "masks" in tree or {"qpos", "qvel"} <= set(tree) or (ogbench and "rewards" not in tree)
    )
    if choices.layout == "ogbench" or (not transitions and rows_of_states):
        return _states(path, tree, choices)
    if not transitions and "terminals" in tree:
        raise ValueError(
            f"{path}: 'terminals' marks ends, and nothing says whether the marked rows are final "
            "states without an action (OGBench's layout: give --layout ogbench) or transitions "
            "(D4RL's: name the flags of cut-off episodes with --timeouts KEY, or give --timeouts "
            "none if no episode is cut off)"
        )
    table = _table(path, "", tree, choices)
    told = table.timeouts or table.ends or table.next_observations or choices.timeouts
    if not told and choices.layout != "transitions":
        raise ValueError(
            f"{path}: no array says where episodes were cut off: name its flags with --timeouts "
            "KEY, or give --timeouts none if every episode ends in a terminal state (it holds "
            f"{', '.join(tree)})"
        )
    read = {leaf.key.split("/")[0] for leaf in table.leaves()}
    ignored = tuple(key for key in tree if key not in read)
    return Layout("transitions", (table,), ignored=ignored)


def _states(path: Path, tree: Tree, choices: Choices) -> Layout:
    if choices.terminals or choices.timeouts or choices.next_observations:
        raise ValueError(
            f"{path}: --layout ogbench reads 'terminals' alone, without --terminals, --timeouts or "
            "--next-observations"
        )
    states: dict[str, Leaf] = {}
    seen = tree.get("observations")
    if choices.keep_leaves and seen is not None and not isinstance(seen, Leaf):
        leaves = _observations(str(path), tree, "observations", choices, path, "")
        states |= {leaf.key: leaf for leaf in leaves}
    elif choices.observation_keys:
        raise ValueError(
            f"{path}: 'observations' has no entries {', '.join(choices.observation_keys)}; it is "
            "an array"
        )
    for key in ("observations", "actions", "terminals", *_STATES):
        if key == "observations" and states:
            continue
        found = tree.get(key)
        if isinstance(found, Leaf):
            states[key] = found
        elif key not in _STATES or found is not None:
            raise DataDamaged(f"{path}: no array '{key}' (it holds {', '.join(tree)})")
    read = {key.partition("/")[0] for key in states}
    ignored = tuple(key for key in tree if key not in read)
    return Layout("rows of states (OGBench)", states=states, ignored=ignored)


def _episode(path: Path, name: str, group: Tree, choices: Choices) -> Table:
    table = _table(path, name, group, choices)
    equal = table.observations[0].rows == table.actions.rows
    if table.has_final_state or (equal and table.next_observations):
        return table
    if equal and choices.layout == "transitions":
        return table
    raise DataDamaged(
        f"{path}: '{name}' has {table.observations[0].rows} states and {table.actions.rows} "
        "actions; expected a state more than actions, the final one included, or "
        "'next_observations' (--layout transitions reads an episode without its final state, and "
        "leaves out the last transition where it was cut off)"
    )


def _demonstration(path: Path, name: str, group: Tree, choices: Choices) -> Table:
    """As robomimic trains on it: `dones` are ends after which no value follows."""
    given = choices
    if choices.terminals is None and "dones" in group:
        given = replace(choices, terminals="dones")
    return _table(path, name, group, given)


def _d3rlpy(path: Path, tree: Tree, number: str, choices: Choices) -> Table:
    """One episode of d3rlpy's format 2: its arrays are told apart by a number behind the name."""
    columns = ("observations", "actions", "rewards", "terminated")
    leaves = {key: find(tree, f"{key}_{number}") for key in columns}
    for key, leaf in leaves.items():
        if not isinstance(leaf, Leaf):
            raise DataDamaged(f"{path}: no array '{key}_{number}' (d3rlpy's format has one)")
    observations, actions, rewards, terminated = (leaves[key] for key in columns)
    assert isinstance(observations, Leaf) and isinstance(actions, Leaf)  # noqa: PT018
    assert isinstance(rewards, Leaf) and isinstance(terminated, Leaf)  # noqa: PT018
    if choices.observation_keys:
        raise ValueError(f"{path}: '{observations.key}' is an array, without entries to choose")
    if terminated.shape or terminated.dtype.kind not in "biu":
        raise DataDamaged(f"{path}: '{terminated.key}' is {terminated}, expected one flag")
    return Table("", (observations,), actions, rewards=rewards, terminals=terminated, single=True)


def _table(path: Path, name: str, group: Tree, choices: Choices) -> Table:
    """The parts of one table, by the names that are common for them."""
    place = f"{path}/{name}" if name else str(path)
    actions = _find(path, name, group, "actions", choices)
    if not isinstance(actions, Leaf):
        what = "no array 'actions'" if actions is None else "'actions' is a group, not one vector"
        raise DataDamaged(f"{place}: {what} (it holds {', '.join(group)})")
    observations = _observations(place, group, "observations", choices, path, name)
    if not observations:
        raise DataDamaged(f"{place}: no array 'observations' (it holds {', '.join(group)})")
    flags = {
        role: _array(place, role, _find(path, name, group, role, choices))
        for role in ("rewards", "terminals", "timeouts", "ends", "masks")
    }
    done = None
    if flags["terminals"] is None and choices.terminals is None:
        done = _done(place, group, timeouts=flags["timeouts"])
    if flags["terminals"] is None and done is None and choices.terminals != NONE:
        raise ValueError(
            f"{place}: no array says which transitions end in a terminal state, behind which no "
            "value follows: name its flags with --terminals KEY, or give --terminals none if there "
            f"are none (it holds {', '.join(group)})"
        )
    return Table(
        name,
        observations,
        actions,
        _observations(place, group, "next_observations", choices, path, name),
        flags["rewards"],
        done or flags["terminals"],
        flags["timeouts"],
        flags["ends"],
        done is not None,
        flags["masks"],
    )


def _done(place: str, group: Tree, *, timeouts: Leaf | None) -> Leaf | None:
    """Flags whose name leaves open whether an end is a true one."""
    for word in _RLDS:
        if word in group:
            raise ValueError(
                f"{place}: '{word}' is a word of RLDS, where the last step of an episode is no "
                "transition: leave those steps out, and name the flags with --terminals KEY and "
                "--timeouts KEY"
            )
    key = next((key for key in _DONE if key in group), None)
    if key is None:
        return None
    if timeouts is None:
        raise ValueError(
            f"{place}: '{key}' says where episodes end, but not whether in a terminal state: give "
            f"--terminals {key} if no value follows any of them, or --timeouts {key} --terminals "
            "none if all of them were cut off"
        )
    return _array(place, key, group[key])


def _find(path: Path, name: str, group: Tree, role: str, choices: Choices) -> "Leaf | Tree | None":
    """What plays a part in a table: the key that was given, else one of the usual names."""
    chosen = choices.of(role)
    if chosen == NONE:
        return None
    place = f"{path}/{name}" if name else str(path)
    if chosen is not None:
        found = find(group, chosen)
        if found is None:
            option = f"--{role.replace('_', '-')}"
            raise ValueError(
                f"{place}: {option} {chosen}: there is no such array (it holds {', '.join(group)})"
            )
        return found
    names = [key for key in _NAMES[role] if key in group]
    if len(names) > 1:
        options = role in ("terminals", "timeouts", "next_observations")
        remedy = f"say which with --{role.replace('_', '-')} KEY" if options else "remove one"
        raise ValueError(f"{place}: both {' and '.join(map(repr, names))} are there: {remedy}")
    return group[names[0]] if names else None


def _observations(
    place: str, group: Tree, role: str, choices: Choices, path: Path, name: str
) -> tuple[Leaf, ...]:
    """The leaves of the observations in the order in which they are joined."""
    found = _find(path, name, group, role, choices)
    if found is None:
        return ()
    keys = choices.observation_keys
    if isinstance(found, Leaf):
        if keys:
            raise ValueError(f"{place}: '{role}' has no entries {', '.join(keys)}; it is an array")
        return (found,)
    known = ", ".join(found)
    leaves: list[Leaf] = []
    for key in keys:
        member = find(found, key)
        if member is None:
            raise DataDamaged(f"{place}: no array '{key}' in '{role}' (it holds {known})")
        leaves += flattened(member)
    if keys:
        return tuple(leaves)
    leaves = flattened(found)
    if choices.keep_leaves:
        return tuple(leaves)
    for leaf in leaves:
        if leaf.dtype.kind not in "fiub" or len(leaf.shape) > 2:
            raise ValueError(
                f"{place}: the entry {leaf} of '{role}' is no vector: say which of {known} to "
                "join, and in which order, with --observation-keys"
            )
        if len(leaf.shape) == 1 and leaf.dtype.kind in "iub":
            raise ValueError(
                f"{place}: the entry {leaf} of '{role}' holds one whole number a row, a number or "
                f"a category: say which of {known} to join as numbers with --observation-keys"
            )
    return tuple(leaves)


def _array(place: str, role: str, found: "Leaf | Tree | None") -> Leaf | None:
    if found is not None and not isinstance(found, Leaf):
        raise DataDamaged(f"{place}: '{role}' is a group, expected an array")
    return found


def _numbered(tree: Tree, pattern: str) -> list[str]:
    """The names of a pattern, by their number: episode_10 comes after episode_9."""
    found = [(int(m[1]), key) for key in tree if (m := re.fullmatch(pattern, key))]
    return [key for _, key in sorted(found)]


def _group(path: Path, name: str, member: "Leaf | Tree") -> Tree:
    if isinstance(member, Leaf):
        raise DataDamaged(f"{path}: '{name}' is an array, expected a group of arrays")
    return member
