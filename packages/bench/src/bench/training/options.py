"""From the options of a command to packs with complete settings, or one clear error."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.agents import AGENTS
from bench.data import TaskData
from bench.experiment import (
    CLONING,
    Mode,
    OfflineRequest,
    execution_mode,
    given_values,
    is_captured,
    is_compiled,
    resolved_precision,
)
from bench.machine import available_cores
from bench.simulation import EnvironmentLimits
from bench.suites import Suite, TrainingProtocol, smoke, unknown
from bench.tracking import require
from bench.training.agent_settings import settings_by_agent
from bench.training.cells import Pack, plan
from bench.training.compilation import check_compiler
from bench.training.custom_task import chosen_suite, environment_limits
from bench.training.devices import select_device
from bench.training.existing_packs import in_existing_packs
from bench.training.own_policy import PlannedNetworks, networks_of, with_networks
from bench.training.pack_size import measured_size
from bench.training.request_checks import check_request
from bench.training.run_plan import Plan
from bench.training.training_data import memory_limit

__all__ = [
    "Plan",
    "agents_named",
    "plan_grid",
    "plan_offline",
    "resolved_options",
]


def plan_offline(
    options: OfflineRequest,
    *,
    online_only: bool = False,
    networks: PlannedNetworks | None = None,
    given: TaskData | None = None,
    chosen: Suite | None = None,
) -> Plan:
    """Check every option and lay out the packs.

    Args:
        options: of the command.
        online_only: there is an online phase: allow agents that learn in it only.
        networks: the user's own; by default those that the options name.
        given: data in memory, instead of those that the options name.
        chosen: a suite, instead of the one that they name.

    Raises:
        ValueError: an unknown name, an impossible value, or a device that is not there.
    """
    check_request(options)
    require(options.track)
    networks = networks or _networks(options)
    chosen = _chosen(options, networks, given, chosen, online=online_only)
    agents = agents_named(options.agent, online_only=online_only)
    device = select_device(options.device)
    runs = options.seeds * len(agents) * sum(len(domain.tasks) for domain in chosen.domains)
    processes = _processes(options, device, runs)
    precision = resolved_precision(options.precision, gpu=device.type == "cuda")
    mode = _mode(options, device)
    settings = settings_by_agent(options, chosen.domains, agents)
    cloning = settings.pop(CLONING)
    directory = _directory(options, chosen)
    # A module of the user's has no replica axis.
    largest_pack = 1 if networks else _largest_pack(options, processes, runs, device)
    if options.pack == "auto" and settings and networks is None:
        largest_pack = measured_size(
            chosen, settings, directory, runs=runs, device=device, precision=precision,
            mode=mode, processes=processes,
        )  # fmt: skip
    pretraining, packs, configs = _packs(chosen, cloning, settings, _seeds(options), largest_pack)
    planned = Plan(
        suite=chosen,
        pretraining=pretraining,
        packs=packs,
        configs=configs,
        device=device,
        precision=precision,
        directory=directory,
        data_dir=options.data_dir,
        generate=options.generate or options.preset == "smoke" or chosen.name.startswith("quick"),
        largest_pack=largest_pack,
        processes=processes,
        walkers="any" if options.preset == "smoke" else "recipe",
        data_memory=memory_limit(options.data_memory, device, processes),
        track=options.track,
        mode=mode,
        limits=_limits_of_each(environment_limits(options), processes),
        networks=networks,
        given=given,
    )
    return in_existing_packs(planned)


def _chosen(
    options: OfflineRequest,
    networks: PlannedNetworks | None,
    given: TaskData | None,
    chosen: Suite | None,
    *,
    online: bool,
) -> Suite:
    """The suite with the tasks, networks and protocol that were asked for."""
    if chosen is None:
        vectors = networks is None or networks.is_perceptron
        chosen = chosen_suite(options, online=online, given=given, vectors=vectors)
    chosen = chosen.narrowed(options.domains, options.tasks)
    if options.preset == "smoke":
        chosen = smoke(chosen)
    if networks is not None:
        chosen = with_networks(chosen, networks)
    return replace(chosen, protocol=_protocol(chosen, options))


def _mode(options: OfflineRequest, device: torch.device) -> Mode:
    """How updates are executed, if the device can."""
    mode = execution_mode(compiled=options.compile, captured=options.capture)
    if is_compiled(mode):
        check_compiler(device)
    if is_captured(mode):
        _check_capture(device)
    return mode


def _networks(options: OfflineRequest) -> PlannedNetworks | None:
    if options.policy is None:
        return None
    return networks_of(options.policy, convention=options.convention)


def _directory(options: OfflineRequest, chosen: Suite) -> Path:
    suffix = "" if options.preset == "full" else f"-{options.preset}"
    return options.out or Path("runs") / (chosen.name + suffix)


def _seeds(options: OfflineRequest) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


def _packs(
    chosen: Suite,
    cloning: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
    seeds: range,
    largest_pack: int | None,
) -> tuple[tuple[Pack, ...], tuple[Pack, ...], dict[str, Any]]:
    """Packs of behaviour cloning, packs of the agents, and the settings of all by pack name."""
    configs: dict[str, Any] = {}

    def packs_of(agent: str, found: Mapping[str, Any]) -> tuple[Pack, ...]:
        packs = plan(chosen, agent, seeds, largest_pack)
        configs.update({pack.name: found[pack.domain.name] for pack in packs})
        return packs

    pretraining = packs_of(CLONING, cloning) if chosen.protocol.pretrain_steps else ()
    if not pretraining and not settings:
        raise ValueError(
            f"agent {CLONING!r} has nothing to train: suite {chosen.name!r} begins without "
            "behaviour cloning, or --pretrain-steps is 0; give --pretrain-steps 300000, for example"
        )
    packs = tuple(pack for agent, found in settings.items() for pack in packs_of(agent, found))
    return pretraining, packs, configs


def _limits_of_each(limits: EnvironmentLimits, processes: int) -> EnvironmentLimits:
    """The memory shared by the simulators of all processes, which do not know of each other."""
    return replace(limits, memory=limits.memory_of_each(max(processes, available_cores())))


def _check_capture(device: torch.device) -> None:
    if device.type != "cuda":
        raise ValueError(f"--capture needs a CUDA device, not {device}; leave it out")


def resolved_options(
    options: OfflineRequest, suffix: str, *, online_only: bool = False
) -> OfflineRequest:
    """The options with a run directory of its own and with the packs measured, if they are to be.

    So a run that is planned in several pieces is measured once, and goes on in the packs that it
    began with.

    Raises:
        ValueError: as :func:`plan_offline`.
    """
    if options.out is None:
        usual = plan_offline(replace(options, pack=None), online_only=online_only).directory
        options = replace(options, out=Path(f"{usual}-{suffix}"))
    if options.pack == "auto":
        plan = plan_offline(options, online_only=online_only)
        options = replace(options, pack=plan.largest_pack)
    return options


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One of several plans that are compared in one run directory.

    Attributes:
        request: of its offline phase.
        label: what errors call it.
        variant: of a pack of an agent, as its tables name it.
    """

    request: OfflineRequest
    label: str
    variant: Callable[[str], tuple[str, ...]]


def plan_grid(base: Plan, points: Iterable[GridPoint], kept: Sequence[Pack] = ()) -> Plan:
    """The packs of every point in one plan; packs that points have in common stand in it once.

    Args:
        base: for all else.
        points: what is compared.
        kept: packs of `base` that stay as they are at every point.

    Raises:
        ValueError: as :func:`plan_offline`, with the point's label.
    """
    packs = {pack.name: pack for pack in kept}
    configs = {name: base.configs[name] for name in packs}
    for point in points:
        try:
            found = plan_offline(point.request)
        except ValueError as error:
            raise ValueError(f"at {point.label}: {error}") from error
        for pack in found.in_order:
            named = replace(pack, variant=point.variant(pack.agent))
            if named.name not in packs:
                packs[named.name] = named
                configs[named.name] = found.configs[pack.name]
    return replace(
        base,
        pretraining=tuple(pack for pack in packs.values() if pack.clones),
        packs=tuple(pack for pack in packs.values() if not pack.clones),
        configs=configs,
    )


def _processes(options: OfflineRequest, device: torch.device, runs: int) -> int:
    """One per GPU, or one per core, but no more than runs."""
    if options.processes is not None:
        if options.processes < 1:
            raise ValueError(f"--processes must be at least 1, got {options.processes}")
        return options.processes
    if options.preset == "smoke":
        return 1
    if device.type == "cuda":
        places = 1 if device.index is not None else torch.cuda.device_count()
    else:
        places = available_cores()
    return min(places, runs)


def _largest_pack(
    options: OfflineRequest, processes: int, runs: int, device: torch.device
) -> int | None:
    """The size asked for, or as large as keeps every process busy."""
    if isinstance(options.pack, int):
        return options.pack
    if processes == 1:
        return None
    even = -(-runs // processes)
    # One thread gains little from a third run in a pack; small packs keep all cores busy.
    return min(even, 2) if device.type == "cpu" else even


def _protocol(chosen: Suite, options: OfflineRequest) -> TrainingProtocol:
    return replace(chosen.protocol, **given_values(options, online=False))


def agents_named(names: Sequence[str], *, online_only: bool = False) -> tuple[str, ...]:
    """The agents that were asked for.

    Raises:
        ValueError: there is none of that name, or it learns online only where that is not allowed.
    """
    if names == ("all",):
        return tuple(n for n, entry in AGENTS.items() if online_only or not entry.online_only)
    if "all" in names:
        raise ValueError(f"--agent all cannot be combined with other agents, got {' '.join(names)}")
    for name in names:
        if name not in AGENTS:
            raise ValueError(unknown("agent", name, [*AGENTS, "all"]))
        if AGENTS[name].online_only and not online_only:
            raise ValueError(f"agent {name!r} only learns online; use `bench online`")
    return tuple(names)
