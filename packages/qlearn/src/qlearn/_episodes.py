"""Recorded episodes in a layout that stores every observation once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from qlearn._images import check_images
from qlearn._mapped import MappedRows
from qlearn._tree import (
    LeafSpec,
    ObservationSpec,
    Tree,
    described,
    leading_shape,
    matching_leaves,
    tree_leaves,
    tree_map,
)

__all__ = ["EpisodeData"]

if TYPE_CHECKING:
    # See `qlearn._tree.Observed`.
    Observations: TypeAlias = Tensor | MappedRows | Any
else:
    Observations = (
        Shaped[Tensor, "N *O"] | MappedRows | Mapping[str, Shaped[Tensor, "N ..."] | MappedRows]
    )


@dataclass(frozen=True, slots=True)
class EpisodeData:
    """Episodes one after the other, ``L + 1`` rows for ``L`` transitions.

    Row ``n`` holds an observation and what was done there; row ``n + 1`` holds the observation
    after it. The final row of an episode holds its last observation only: action, reward and mask
    there are padding that is never read as a transition. Transitions are numbered without the
    padding, ``0 .. S - 1``; a transition's row is found by binary search among the episodes, so
    no table grows with the data (100M transitions with 55 + 5 floats and five tasks: 25.0 GB).

    The tasks of a domain share everything but rewards and masks, whose first axis is the task.

    Attributes:
        observations: ``(N, O)`` in memory or on the disk; images ``(N, *O)`` of any number type;
            several as a mapping of names to such tables, each of its own type.
        actions: ``(N, A)``, likewise.
        ends: ``(E,)`` int64, number of transitions up to the end of each episode; ``ends[-1] = S``.
        rewards: ``(T, N)``, any number type; int8 is exact for OGBench's counted rewards.
        masks: ``(T, N)``, any number type or bool, 0 where the task ended at that row.
    """

    observations: Observations
    actions: Float[Tensor, "N A"] | MappedRows
    ends: Int[Tensor, "E"]
    rewards: Shaped[Tensor, "T N"]
    masks: Shaped[Tensor, "T N"]

    def __post_init__(self) -> None:
        _check_tables(actions=self.actions)
        rows = _count_rows(self.observations)
        for name, rows_here in (
            ("actions", len(self.actions)),
            ("rewards", self.rewards.shape[-1]),
            ("masks", self.masks.shape[-1]),
        ):
            if rows_here != rows:
                raise ValueError(f"{name} has {rows_here} rows, observations {rows}")
        if self.rewards.shape != self.masks.shape or self.rewards.dim() != 2:
            raise ValueError(
                "rewards and masks need one shape (tasks, rows), got "
                f"{tuple(self.rewards.shape)} and {tuple(self.masks.shape)}"
            )
        if len(self.ends) == 0:
            raise ValueError("no episodes")

    @classmethod
    def from_rows(
        cls,
        observations: Observations,
        actions: Float[Tensor, "N A"] | MappedRows,
        terminals: Shaped[Tensor, "N"],
        rewards: Shaped[Tensor, "T N"] | None = None,
        masks: Shaped[Tensor, "T N"] | None = None,
    ) -> "EpisodeData":
        """From OGBench's files: ``terminals`` marks the final row of every episode.

        Args:
            observations: every observation, final ones included.
            actions: one row for each observation.
            terminals: nonzero on the final row of an episode, and on the last row of all.
            rewards: per task; zero without.
            masks: per task; one without.

        Raises:
            ValueError: arrays of different length, an episode without a transition, or no
                terminal on the last row.
        """
        _check_tables(actions=actions, terminals=terminals)
        rows = _count_rows(observations)
        check_images(observations)
        if len(terminals) != rows:
            raise ValueError(f"terminals has {len(terminals)} rows, observations {rows}")
        finals = terminals.nonzero().flatten()
        if rows == 0 or len(finals) == 0 or finals[-1] != rows - 1:
            raise ValueError(
                "terminals must mark the last row: the data has to end where an episode ends"
            )
        lengths = finals.diff(prepend=finals.new_tensor([-1])) - 1
        empty = (lengths == 0).nonzero().flatten()
        if len(empty) > 0:
            row = int(finals[empty[0]])
            raise ValueError(
                f"the episode that ends in row {row} has one row, hence no transition; in this "
                "layout an episode of L transitions has L + 1 rows"
            )
        # Expanded zeros and ones take no memory; the reward-free stage of 100M rows needs none.
        unrewarded = torch.zeros(1, 1, dtype=torch.int8, device=terminals.device)
        return cls(
            observations,
            actions,
            lengths.cumsum(0),
            unrewarded.expand(1, rows) if rewards is None else rewards,
            (unrewarded + 1).expand(1, rows) if masks is None else masks,
        )

    @classmethod
    def from_transitions(
        cls,
        observations: Shaped[Tensor, "S *O"] | Mapping[str, Shaped[Tensor, "S ..."]],
        actions: Float[Tensor, "S A"],
        next_observations: Shaped[Tensor, "S *O"] | Mapping[str, Shaped[Tensor, "S ..."]],
        terminals: Shaped[Tensor, "S"],
        rewards: Shaped[Tensor, "T S"] | None = None,
        masks: Shaped[Tensor, "T S"] | None = None,
    ) -> "EpisodeData":
        """From transitions in order (OGBench's regular layout), with next observations stored.

        Args:
            observations: before each transition.
            actions: of each transition.
            next_observations: after each transition.
            terminals: nonzero on the last transition of an episode, whether it terminated or was
                cut off. The last transition of all counts as one.
            rewards: per task.
            masks: per task.

        Raises:
            ValueError: arrays of different length or shape, or a transition inside an episode whose
                next observation is not the observation that follows.
        """
        _check_tables(actions=actions, terminals=terminals)
        count = _count_rows(observations)
        _check_joined(observations, next_observations)
        for name, given in (
            ("actions", len(actions)),
            ("next_observations", _count_rows(next_observations, "next_observations")),
            ("terminals", len(terminals)),
            ("rewards", count if rewards is None else rewards.shape[-1]),
            ("masks", count if masks is None else masks.shape[-1]),
        ):
            if given != count:
                raise ValueError(f"{name} has {given} rows, observations {count}")
        if count == 0:
            raise ValueError("no transitions")
        last = terminals.bool().clone()
        last[-1] = True
        jumps = torch.zeros(count - 1, dtype=torch.bool, device=last.device)
        for (_, leaf), (_, after) in zip(
            tree_leaves(observations), tree_leaves(next_observations), strict=True
        ):
            jumps |= (after[:-1] != leaf[1:]).flatten(1).any(-1)
        jumps &= ~last[:-1]
        if bool(jumps.any()):
            row = int(jumps.nonzero()[0])
            raise ValueError(
                f"next_observations[{row}] differs from observations[{row + 1}] although "
                f"terminals[{row}] is 0; set terminals to 1 wherever an episode ends"
            )
        finished = last.cumsum(0)
        rows = torch.arange(count, device=last.device) + finished - last.long()
        total = count + int(finished[-1])
        finals = rows[last] + 1

        def spread(values: Tensor, axis: int) -> Tensor:
            """Leave a row of zeros after each episode."""
            shape = list(values.shape)
            shape[axis] = total
            return values.new_zeros(shape).index_copy_(axis, rows, values)

        return cls.from_rows(
            tree_map(
                lambda leaf, after: spread(leaf, 0).index_copy_(0, finals, after[last]),
                observations,
                next_observations,
            ),
            spread(actions, 0),
            torch.zeros(total, dtype=torch.bool, device=last.device).index_fill_(0, finals, True),
            None if rewards is None else spread(rewards, 1),
            None if masks is None else spread(masks, 1),
        )

    @property
    def transitions(self) -> int:
        """Number of transitions ``S``."""
        return self.rewards.shape[1] - len(self.ends)

    @property
    def tasks(self) -> int:
        """Number of tasks ``T``."""
        return self.rewards.shape[0]

    @property
    def nbytes(self) -> int:
        """Memory of all arrays in bytes; expanded axes count once, rows on the disk not at all."""
        arrays = [leaf for f in fields(self) for _, leaf in tree_leaves(getattr(self, f.name))]
        return sum(a.untyped_storage().nbytes() for a in arrays if isinstance(a, Tensor))

    @property
    def streamed(self) -> bool:
        """Whether observations, or leaves of them, lie on the disk."""
        return any(isinstance(leaf, MappedRows) for _, leaf in tree_leaves(self.observations))

    @property
    def spec(self) -> ObservationSpec:
        """Shape and type of an observation's leaves."""
        return tree_map(lambda leaf: LeafSpec(tuple(leaf.shape[1:]), leaf.dtype), self.observations)

    def with_tasks(
        self, rewards: Shaped[Tensor, "T N"], masks: Shaped[Tensor, "T N"]
    ) -> "EpisodeData":
        """The same episodes with other rewards and masks; nothing is copied."""
        return replace(self, rewards=rewards, masks=masks)

    def to(self, device: torch.device | str) -> "EpisodeData":
        """The same data on ``device``; rows on the disk stay there."""
        if self.streamed:
            return self
        moved: dict[str, Any] = {
            f.name: tree_map(_to(device), getattr(self, f.name)) for f in fields(self)
        }
        return replace(self, **moved)

    def rows(
        self, transitions: Int[Tensor, "*shape"]
    ) -> tuple[Int[Tensor, "*shape"], Int[Tensor, "*shape"]]:
        """Row and episode of each transition number, without waiting for the device."""
        episodes = torch.searchsorted(self.ends, transitions, right=True)
        return transitions + episodes, episodes


def _to(device: torch.device | str) -> Callable[[Tensor], Tensor]:
    return lambda leaf: leaf.to(device)


def _count_rows(observations: object, name: str = "observations") -> int:
    """Rows of observations, after checking that every leaf is a table with as many."""
    leaves = tree_leaves(observations)
    _check_tables(**{described(name, leaf): table for leaf, table in leaves})
    return leading_shape(observations, 1, name)[0]  # type: ignore[arg-type]


def _check_joined(observations: Tree[Tensor], after: Tree[Tensor]) -> None:
    """Refuse next observations whose leaves are not those of the observations."""
    _count_rows(after, "next_observations")
    for (name, leaf), (_, next_leaf) in zip(
        tree_leaves(observations), matching_leaves(observations, after), strict=True
    ):
        if next_leaf.shape[1:] != leaf.shape[1:]:
            raise ValueError(
                f"{described('next_observations', name)} has rows of shape "
                f"{tuple(next_leaf.shape[1:])}, {described('observations', name)} of "
                f"{tuple(leaf.shape[1:])}; expected the same"
            )


def _check_tables(**tables: object) -> None:
    """Refuse what has no rows."""
    for name, table in tables.items():
        least = 1 if name == "terminals" else 2
        if not isinstance(table, Tensor | MappedRows):
            keys = f" with keys {sorted(map(str, table))}" if isinstance(table, dict) else ""
            raise ValueError(
                f"{name} must be one tensor with a row per step, got {type(table).__name__}{keys}: "
                "convert arrays by torch.as_tensor"
            )
        if len(table.shape) < least:
            raise ValueError(
                f"{name} has shape {tuple(table.shape)}; expected (rows{', size' * (least - 1)})"
            )


def check_tasks(tasks: Sequence[int], available: int) -> None:
    """Refuse task numbers outside ``0 .. available - 1``."""
    for task in tasks:
        if not 0 <= task < available:
            raise ValueError(f"task {task} given, the data has rewards for 0 .. {available - 1}")
