"""Replay of online experience: a ring of transitions per replica."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from qlearn._chunks import ChunkBatch, at_least_float32, summarise
from qlearn._random import RandomStreams
from qlearn._sampler import ChunkMode, check_horizon, check_past, discount_powers
from qlearn._tree import (
    LeafSpec,
    Observation,
    ObservationSpec,
    described,
    matching_leaves,
    tree_leaves,
    tree_map,
    tree_rows,
)

__all__ = ["RingBuffer"]


class RingBuffer(nn.Module):
    """The last ``capacity`` transitions of every replica, sampled in chunks on the device.

    Replicas fill in step, one transition each per :meth:`add`, and never see each other's. Chunks
    are numbered from the oldest transition to the newest, so none straddles the write position and
    every slot is part of one, also when the ring is full. Modes as in
    :class:`~qlearn.ChunkSampler`. All counters are buffers, so ``state_dict`` resumes exactly.

    An episode has no fixed place in a ring, hence both observations of a transition are stored:
    ``4 * (2 * O + A + 2) + 1`` bytes each in float32, and 8 more in mode ``"within_episode"``.

    Args:
        replicas: number of rings ``R``.
        capacity: transitions in each.
        observation_dim: size ``O`` of an observation, or the shape of an image, or the
            :attr:`~qlearn.EpisodeData.spec` of named leaves.
        action_dim: size ``A`` of one action.
        horizon: chunk length ``H``.
        discount: per step, for the reward sum inside a chunk.
        mode: which chunks count.
        history: observations up to the present one, as of :class:`~qlearn.ChunkSampler`. Those
            that the ring has dropped are replaced by the oldest of the episode that it holds.
        offset: of a chunk's first action from the present, likewise.
        device: where everything lives.
        dtype: type of stored observations, for instance ``torch.uint8`` for images, and of actions
            if it is a float. Rewards, masks and discounts are float32, or float64 beside float64.
            Named leaves have types of their own; float32 is everything else then.

    Raises:
        ValueError: a capacity below the chunk length, or an impossible setting.
    """

    actions: Float[Tensor, "R C A"]
    rewards: Float[Tensor, "R C"]
    masks: Float[Tensor, "R C"]
    ends: Bool[Tensor, "R C"]
    discounts: Float[Tensor, "H"]
    _steps: Int[Tensor, "H"]
    _replica: Int[Tensor, "R 1"]
    added: Int[Tensor, ""]
    lengths: Int[Tensor, "R"]
    whole: Int[Tensor, "R W"]
    whole_added: Int[Tensor, "R"]
    whole_dropped: Int[Tensor, "R"]

    def __init__(
        self,
        replicas: int,
        capacity: int,
        observation_dim: int | Sequence[int] | ObservationSpec,
        action_dim: int,
        *,
        horizon: int = 1,
        discount: float,
        mode: ChunkMode = "any",
        history: int = 1,
        offset: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_horizon(horizon, discount, mode)
        check_past(horizon, history, offset)
        if capacity < horizon:
            raise ValueError(f"capacity {capacity} cannot hold a chunk of {horizon} steps")
        spec = _spec(observation_dim, dtype)
        sizes = [size for _, leaf in tree_leaves(spec) for size in leaf.shape]
        if not isinstance(action_dim, int) or min(replicas, action_dim, *sizes) < 1:
            raise ValueError(
                "replicas, observation_dim and action_dim must be at least 1, got "
                f"{replicas}, {observation_dim}, {action_dim} (only observations may have a shape)"
            )
        self.spec = spec
        self.replicas, self.capacity = replicas, capacity
        self.horizon, self.mode = horizon, mode
        self.history, self.offset, self.played = history, offset, horizon + offset
        self.size = 0

        lone = spec.dtype if isinstance(spec, LeafSpec) else None
        wide = at_least_float32(lone)

        def stored(name: str, *shape: int, kind: torch.dtype) -> None:
            self.register_buffer(name, torch.zeros(shape, dtype=kind, device=device))

        for name, leaf in tree_leaves(spec):
            for table in ("observations", "next_observations"):
                stored(_stored_name(table, name), replicas, capacity, *leaf.shape, kind=leaf.dtype)
        played = lone if lone is not None and lone.is_floating_point else wide
        stored("actions", replicas, capacity, action_dim, kind=played)
        stored("rewards", replicas, capacity, kind=wide)
        stored("masks", replicas, capacity, kind=wide)
        stored("ends", replicas, capacity, kind=torch.bool)
        stored("added", kind=torch.int64)
        # Mode "within_episode": a second ring lists the last transition of every chunk that lies
        # in one episode, by its number since the beginning, as far as the chunk is still stored.
        stored("lengths", replicas, kind=torch.int64)
        stored("whole", replicas, capacity if mode != "any" else 0, kind=torch.int64)
        stored("whole_added", replicas, kind=torch.int64)
        stored("whole_dropped", replicas, kind=torch.int64)
        steps = torch.arange(self.played, device=device)
        self.register_buffer("_steps", steps, persistent=False)
        self.register_buffer("discounts", discount_powers(discount, steps, lone), persistent=False)
        self.register_buffer(
            "_replica", torch.arange(replicas, device=device).unsqueeze(-1), persistent=False
        )
        self.register_load_state_dict_post_hook(_recount)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def add(
        self,
        observations: Shaped[Tensor, "R *O"] | Mapping[str, Shaped[Tensor, "R ..."]],
        actions: Float[Tensor, "R A"],
        rewards: Float[Tensor, "R"],
        masks: Float[Tensor, "R"],
        ends: Bool[Tensor, "R"],
        next_observations: Shaped[Tensor, "R *O"] | Mapping[str, Shaped[Tensor, "R ..."]],
    ) -> None:
        """Append one transition to every ring, over the oldest one when full.

        Args:
            observations: before the step.
            actions: played.
            rewards: received.
            masks: 0 where the task ended (nothing to bootstrap), else 1.
            ends: whether the episode ended here, by success, failure or time limit.
            next_observations: after the step, before any reset.

        Raises:
            ValueError: values of another shape, or observations that the ring's type would round to
                integers.
        """
        slot = (self.added % self.capacity).reshape(1)
        rows = [
            *self._leaves("observations", observations),
            *self._leaves("next_observations", next_observations),
            ("actions", self.actions, actions),
            ("rewards", self.rewards, rewards),
            ("masks", self.masks, masks),
            ("ends", self.ends, ends),
        ]
        checked = [(buffer, self._row(name, buffer, values)) for name, buffer, values in rows]
        for buffer, row in checked:  # all are sound: a refused step leaves nothing behind
            buffer.index_copy_(1, slot, row)
        if self.mode == "within_episode":
            self._list_chunk(ends.to(self.ends.device))
        self.added += 1
        self.size = min(self.size + 1, self.capacity)

    def _leaves(self, table: str, given: Any) -> list[tuple[str, Tensor, Tensor]]:
        """What messages call each leaf, where it is stored, and what is given for it."""
        if isinstance(self.spec, LeafSpec) and isinstance(given, Tensor):
            return [(table, getattr(self, table), given)]
        return [
            (described(table, name), getattr(self, _stored_name(table, name)), values)
            for (name, _), (_, values) in zip(
                tree_leaves(self.spec), matching_leaves(self.spec, given, table), strict=True
            )
        ]

    def _row(self, name: str, buffer: Tensor, values: Tensor) -> Tensor:
        """The values as one row of a buffer."""
        if values.is_floating_point() and buffer.dtype in _INTEGERS:
            raise ValueError(
                f"{name} of {values.dtype} do not fit a ring of {buffer.dtype}: they would be "
                "rounded; give RingBuffer another dtype"
            )
        row = values.to(buffer.device, buffer.dtype).unsqueeze(1)
        if row.shape != (self.replicas, 1, *buffer.shape[2:]):
            raise ValueError(
                f"{name}: expected one row per replica, {(self.replicas, *buffer.shape[2:])}, got "
                f"{tuple(values.shape)}"
            )
        return row

    def _stored(self, table: str) -> Any:
        """The tables of observations or next observations, in the form of an observation."""
        if isinstance(self.spec, LeafSpec):
            return getattr(self, table)
        return {name: getattr(self, _stored_name(table, name)) for name in self.spec}

    @property
    def count(self) -> Int[Tensor, "R"]:
        """Number of chunks in each ring, on the device."""
        if self.mode == "within_episode":
            return self.whole_added - self.whole_dropped
        stored = self.added.clamp(max=self.capacity)
        return (stored - self.played + 1).clamp(min=0).expand(self.replicas)

    def sample(self, streams: RandomStreams, batch: int) -> ChunkBatch:
        """``batch`` chunks of each ring, with replacement, from the replica's own stream.

        In mode ``"within_episode"`` a ring without a whole chunk gives rows with ``valid = 0``.

        Raises:
            ValueError: fewer transitions than a chunk has steps.
        """
        self.check_filled()
        return self.take(streams.integers(self.count, batch))

    def check_filled(self) -> None:
        """Refuse a ring that cannot hold a chunk yet.

        Raises:
            ValueError: fewer transitions than a chunk has steps.
        """
        if self.size < self.played:
            raise ValueError(
                f"the ring holds {self.size} transitions, a chunk needs {self.played}; "
                "collect more before training"
            )

    def take(self, index: Int[Tensor, "R B"]) -> ChunkBatch:
        """Chunks by number, ``0`` being the oldest of each ring."""
        if self.mode == "within_episode":
            position = (self.whole_dropped.unsqueeze(-1) + index) % self.capacity
            first = self.whole[self._replica, position] - (self.played - 1)
        else:
            first = (self.added - self.capacity).clamp(min=0) + index
        slots = (first.unsqueeze(-1) + self._steps) % self.capacity
        replica = self._replica.unsqueeze(-1)
        ended_before = self.ends[replica, slots].cumsum(-1) - self.ends[replica, slots].long()
        inside = ended_before == 0
        rewards, masks, valid = summarise(
            self.rewards[replica, slots], self.masks[replica, slots], inside, self.discounts
        )
        kept = inside.sum(-1)
        last = slots.gather(-1, kept.unsqueeze(-1) - 1).squeeze(-1)
        seen = tree_rows(self._stored("observations"), (self._replica, slots[..., 0]))
        after = tree_rows(self._stored("next_observations"), (self._replica, last))
        if self.history > 1 or self.offset:
            begin = self._begin(first)
            if self.history > 1:
                seen = self._with_past(seen, first, begin)
                after = self._with_past(after, first + kept, begin)
            past = torch.arange(self.offset, 0, device=slots.device)
            slots = torch.cat([self._slots(first, begin, past), slots], dim=-1)
        return ChunkBatch(
            observations=seen,
            actions=self.actions[replica, slots].flatten(-2),
            rewards=rewards,
            masks=masks,
            valid=valid * (self.count > 0).to(valid.dtype).unsqueeze(-1),
            next_observations=after,
        )

    def _begin(self, first: Int[Tensor, "R B"]) -> Int[Tensor, "R B"]:
        """The earliest stored transition of the same episode, no further back than is asked for."""
        reach = torch.arange(1, max(self.history - 1, -self.offset) + 1, device=first.device)
        numbers = first.unsqueeze(-1) - reach
        oldest = (self.added - self.capacity).clamp(min=0)
        ended = self.ends[self._replica.unsqueeze(-1), numbers % self.capacity]
        together = ((numbers >= oldest) & ~ended).long().cumprod(-1)
        return first - together.sum(-1)

    def _slots(
        self, numbers: Int[Tensor, "R B"], begin: Int[Tensor, "R B"], steps: Int[Tensor, "n"]
    ) -> Int[Tensor, "R B n"]:
        """Where the transitions so many steps away lie, none before its episode's beginning."""
        return torch.maximum(numbers.unsqueeze(-1) + steps, begin.unsqueeze(-1)) % self.capacity

    def _with_past(
        self, present: Observation, numbers: Int[Tensor, "R B"], begin: Int[Tensor, "R B"]
    ) -> Observation:
        """The observations before these transitions, and the present ones behind them."""
        steps = torch.arange(1 - self.history, 0, device=numbers.device)
        slots = self._slots(numbers, begin, steps)
        past = tree_rows(self._stored("observations"), (self._replica.unsqueeze(-1), slots))
        return tree_map(lambda old, now: torch.cat([old, now.unsqueeze(2)], 2), past, present)

    def _list_chunk(self, ends: Bool[Tensor, "R"]) -> None:
        """Bring the list of whole chunks up to date with the transition just written."""
        # The oldest transition still stored moves on by one, so at most one chunk drops out; this
        # comes first because the new entry may take its place in the list.
        oldest = self.added + 1 - self.capacity
        place = (self.whole_dropped % self.capacity).unsqueeze(-1)
        start = self.whole.gather(1, place).squeeze(-1) - (self.played - 1)
        lost = (self.whole_added > self.whole_dropped) & (start < oldest)
        self.whole_dropped += lost.long()
        self.lengths += 1
        place = (self.whole_added % self.capacity).unsqueeze(-1)
        self.whole.scatter_(1, place, self.added.expand(self.replicas, 1))
        self.whole_added += (self.lengths >= self.played).long()
        self.lengths.masked_fill_(ends.bool(), 0)


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _spec(observed: int | Sequence[int] | ObservationSpec, dtype: torch.dtype) -> ObservationSpec:
    """What is observed, in the form of an observation."""
    if isinstance(observed, LeafSpec):
        return observed
    if isinstance(observed, Mapping):
        return dict(sorted(observed.items()))
    return LeafSpec((observed,) if isinstance(observed, int) else (*observed,), dtype)


def _stored_name(table: str, leaf: str) -> str:
    """Name of a leaf's buffer; names of buffers have no dots."""
    return f"{table}:{leaf.replace('.', '%2E')}" if leaf else table


def _recount(ring: RingBuffer, _: object) -> None:
    ring.size = min(int(ring.added), ring.capacity)
