"""Behaviour-cloned flows kept on disk, so that every agent and run starts from the same ones."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.agents import FlowPolicy, ModulePolicy
from bench.recorded import recorded
from bench.storage import RunLock, has_checkpoints, load_checkpoint, save_checkpoint
from bench.training.cells import Pack

__all__ = ["FlowCache"]

_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class FlowCache:
    """One flow per seed, below a folder whose name is a hash of all that decides them.

    Attributes:
        directory: ``<pretrained>/<domain>--<hash>``.
        steps: updates that the flows were trained for.
    """

    directory: Path
    steps: int

    @classmethod
    def of(
        cls, place: Path, pack: Pack, config: Any, data_fingerprint: str, precision: str
    ) -> "FlowCache":
        """The cache of a behaviour-cloning pack.

        Args:
            place: folder of all caches.
            pack: of agent ``bc``.
            config: its settings.
            data_fingerprint: of the data set.
            precision: of the matrix products.
        """
        protocol = pack.protocol
        content = [
            pack.domain.name,
            pack.domain.chunk_length,
            data_fingerprint,
            precision,
            recorded(config),
            [protocol.batch_size, protocol.pretrain_steps, protocol.chunks, protocol.standardise],
        ]
        if protocol.random_shift:
            content.append({"random_shift": protocol.random_shift})
        if pack.domain.networks is not None:
            content.append(recorded(pack.domain.networks))
        key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
        return cls(place / f"{pack.domain.name}--{key}", protocol.pretrain_steps)

    def holds(self, seeds: Sequence[int]) -> bool:
        """Whether all these seeds have been cloned; a damaged clone counts, and fails to load."""
        return all(has_checkpoints(self._place(seed)) for seed in seeds)

    def save(self, seeds: Sequence[int], flow: FlowPolicy, stopped: Collection[int] = ()) -> None:
        """Keep replica ``r`` of a flow as that of ``seeds[r]``; present ones are left alone.

        Replicas that were stopped have no clone to keep.
        """
        for replica, seed in enumerate(seeds):
            if replica in stopped or self.holds([seed]):
                continue
            with RunLock(self._place(seed), wait=_PATIENCE_SECONDS):  # runs share the folder
                if not self.holds([seed]):
                    state = _of_replica(flow, replica)
                    save_checkpoint(self._place(seed), self.steps, state, {"seed": seed})

    def load(self, seeds: Sequence[int], flow: FlowPolicy) -> dict[int, str]:
        """Fill replica ``r`` of ``flow`` with the clone of ``seeds[r]``; a seed may recur.

        Returns:
            Replicas for which there is no clone, because the cloning was stopped; the flow is left
            as it was there.

        Raises:
            CheckpointError: a clone is damaged.
        """
        device = str(next(flow.parameters()).device)
        states: list[dict[str, Tensor]] = []
        missing: dict[int, str] = {}
        for replica, seed in enumerate(seeds):
            checkpoint = load_checkpoint(self._place(seed), device=device)
            if checkpoint is None:
                missing[replica] = f"there is no cloned policy of seed {seed} to start from"
                states.append(_of_replica(flow, replica))
            else:
                states.append(checkpoint.tensors)
        whole = states[0]
        if len(states) > 1:
            whole = {n: torch.cat([s[n] for s in states]) for n in states[0]}
        flow.load_state_dict(whole)
        return missing

    def _place(self, seed: int) -> Path:
        return self.directory / f"seed-{seed}"


def _of_replica(flow: FlowPolicy, replica: int) -> dict[str, Tensor]:
    """The parameters of one replica; a module of the user's is one as it is."""
    state: dict[str, Tensor] = flow.state_dict()
    if isinstance(flow, ModulePolicy):
        return state
    return {name: value[replica : replica + 1] for name, value in state.items()}
