"""What a job will do: packs with their settings, and where and how they are trained."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from bench.agents import AGENTS
from bench.data import TaskData
from bench.experiment import Mode, is_compiled
from bench.recorded import recorded
from bench.simulation import EnvironmentLimits
from bench.suites import Suite
from bench.training.cells import Pack
from bench.training.own_policy import PlannedNetworks

__all__ = ["Plan", "starts_from_clone"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job will do.

    Attributes:
        suite: narrowed, with the protocol that is used.
        pretraining: packs of agent `bc`, one per domain and group of seeds.
        packs: the packs of the offline phase.
        configs: agent settings by pack name.
        device: where training runs.
        precision: of the matrix products.
        directory: run directory.
        data_dir: folder of the data; None for the default.
        generate: make missing data.
        online: the packs of the online phase, each after the offline one of its cells.
        largest_pack: most runs in a pack; None for all of a domain and agent.
        processes: how many packs are trained at a time.
        walkers: who moves ants and humanoids in data that are made: `any` allows random actions
            where there is no expert.
        data_memory: bytes that a data set may take; larger ones are read from the disk.
        track: names of the trackers that show the curves.
        mode: how updates are executed.
        limits: what an environment may take in each of the processes that simulate.
        networks: the user's own instead of the agents'.
        given: data in memory, instead of those that are looked for by name.
    """

    suite: Suite
    pretraining: tuple[Pack, ...]
    packs: tuple[Pack, ...]
    configs: dict[str, Any]
    device: torch.device
    precision: str
    directory: Path
    data_dir: Path | None
    generate: bool
    online: tuple[Pack, ...] = ()
    largest_pack: int | None = None
    processes: int = 1
    walkers: Literal["recipe", "any"] = "recipe"
    data_memory: int = 1 << 62
    track: tuple[str, ...] = ()
    mode: Mode = "eager"
    limits: EnvironmentLimits = field(default_factory=EnvironmentLimits)
    networks: PlannedNetworks | None = None
    given: TaskData | None = None

    @property
    def in_order(self) -> tuple[Pack, ...]:
        """Every pack behind those that it starts from."""
        return (*self.pretraining, *self.packs, *self.online)

    def pretraining_of(self, pack: Pack) -> tuple[Pack, ...]:
        """The packs whose cloned flows a pack starts from: of its domain, settings and seeds."""
        return tuple(
            clone
            for clone in self.pretraining
            if clone.domain.name == pack.domain.name
            and set(clone.seeds) & set(pack.seeds)
            and set(clone.variant) <= set(pack.variant)
        )

    def required(self, pack: Pack) -> set[str]:
        """Names of the packs that must be finished before a pack can begin."""
        if pack.online and not pack.from_scratch:
            return {replace(pack, online=False).name}
        if starts_from_clone(pack):
            return {clone.name for clone in self.pretraining_of(pack)}
        return set()

    def settings(self) -> dict[str, Any]:
        """Everything that decides the numbers, as plain data."""
        protocol = recorded(self.suite.protocol)
        online = protocol.pop("online")
        settings = {
            "suite": self.suite.name,
            "protocol": protocol,
            "precision": self.precision,
            # Named only where it is so: run directories from before it existed go on.
            **({"compiled": True} if is_compiled(self.mode) else {}),
            "largest_pack": self.largest_pack,
            "packs": self._packs((*self.pretraining, *self.packs)),
        }
        if self.online:
            settings["online"] = {"protocol": online, "packs": self._packs(self.online)}
        return settings

    def _packs(self, packs: Sequence[Pack]) -> dict[str, Any]:
        return {
            pack.name: {
                "agent": pack.agent,
                "dataset": pack.domain.dataset,
                "tasks": list(pack.domain.tasks),
                "seeds": list(pack.seeds),
                "settings": recorded(self.configs[pack.name]),
                **_own(pack),
                **self._swept(pack),
            }
            for pack in packs
        }

    def _swept(self, pack: Pack) -> dict[str, Any]:
        """A pack's variant, and its protocol where that is not the suite's."""
        if not pack.variant:
            return {}
        usual = recorded(self.suite.protocol)
        own = {k: v for k, v in recorded(pack.protocol).items() if v != usual.get(k)}
        return {"variant": ", ".join(pack.variant), **({"protocol": own} if own else {})}


def starts_from_clone(pack: Pack) -> bool:
    """Whether the agents of an offline pack start from behaviour-cloned flows."""
    return not pack.clones and AGENTS[pack.agent].pretrained and pack.protocol.pretrain_steps > 0


def _own(pack: Pack) -> dict[str, Any]:
    """What else decides the numbers where data, environment or networks are the user's own."""
    found: dict[str, Any] = {}
    if task := pack.domain.source.recorded():
        found["task"] = {**task, "horizon": pack.domain.chunk_length}
    if pack.domain.networks is not None:
        found["networks"] = recorded(pack.domain.networks)
    return found
