"""What the arrays of a foreign file are for: the parts of tables, and the choices of the user."""

from dataclasses import dataclass, field
from typing import Literal

from bench.data._tree import Leaf

NONE = "none"
"""Given in the place of a key: there is no such array, and none is needed."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user says about a file.

    Attributes:
        layout: `auto`; `ogbench` if every row is a state and `terminals` marks the final ones;
            `transitions` if every row is a transition.
        observation_keys: entries of a dictionary observation to join, in this order.
        terminals: key of the flags of true ends, or `none` if no episode ends in a terminal state.
        timeouts: key of the flags of transitions after which an episode was cut off, or `none`.
        next_observations: key of the states after the transitions, or `none` to leave them unread.
        keep_leaves: entries of a dictionary observation stay apart, whatever their shapes and
            types; without, they are joined to one vector.
    """

    layout: Literal["auto", "ogbench", "transitions"] = "auto"
    observation_keys: tuple[str, ...] = ()
    terminals: str | None = None
    timeouts: str | None = None
    next_observations: str | None = None
    keep_leaves: bool = False

    def of(self, role: str) -> str | None:
        """The key that was given for a part, if any."""
        given = {"terminals": self.terminals, "timeouts": self.timeouts}
        return (given | {"next_observations": self.next_observations}).get(role)


@dataclass(frozen=True, slots=True)
class Table:
    """Arrays of one episode, or of the transitions of several.

    Attributes:
        name: of its group in the file; empty for the file itself.
        observations: leaves to join, (N, ...) each, or (N + 1, ...) with the final state.
        actions: (N, ...).
        next_observations: leaves of the states after the transitions; empty where there are none.
        rewards: (N,).
        terminals: flags of true ends.
        timeouts: flags of cut-offs.
        ends: flags of ends of either kind.
        done: `terminals` may mean ends of either kind: it must not overlap with `timeouts`.
        masks: 0 after true ends; only compared with `terminals`.
        single: the table is one episode, and `terminals` one flag that speaks of its end.
    """

    name: str
    observations: tuple[Leaf, ...]
    actions: Leaf
    next_observations: tuple[Leaf, ...] = ()
    rewards: Leaf | None = None
    terminals: Leaf | None = None
    timeouts: Leaf | None = None
    ends: Leaf | None = None
    done: bool = False
    masks: Leaf | None = None
    single: bool = False

    @property
    def has_final_state(self) -> bool:
        """Whether there is a state more than actions: the table is one episode."""
        return self.observations[0].rows == self.actions.rows + 1

    def leaves(self) -> list[Leaf]:
        """All that will be read."""
        single = (self.actions, self.rewards, self.terminals, self.timeouts, self.ends, self.masks)
        found = [leaf for leaf in single if leaf is not None]
        return [*self.observations, *self.next_observations, *found]

    def observation_names(self) -> list[str]:
        """Names of the joined leaves inside the observation, or that of the whole."""
        names = [leaf.key.removeprefix(f"{self.name}/") for leaf in self.observations]
        return [name.partition("/")[2] or name for name in names]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file was recognised as.

    Attributes:
        name: of the layout, for people.
        tables: of episodes or transitions; empty for OGBench's rows of states.
        states: arrays of OGBench's layout; empty for the others.
        ignored: names that are not read.
    """

    name: str
    tables: tuple[Table, ...] = ()
    states: dict[str, Leaf] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
