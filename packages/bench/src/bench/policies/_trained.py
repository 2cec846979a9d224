"""One trained policy out of a run directory."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import Tensor, nn

from bench.agents import AGENTS, ModulePolicy
from bench.errors import CheckpointError, ResultsError
from bench.experiment import Phase, is_cloning
from bench.results import is_task
from bench.storage import Checkpoint, PlannedCell, RunRecord, load_checkpoint, part, read_run
from bench.training.cells import Cell
from bench.training.domain_record import DomainRecord
from bench.training.own_policy import CONTEXT, OwnModule, networks_of
from bench.training.stored import stored_config
from bench.training.trainer import trained_replica
from qlearn import ObservationNormalizer, ObservationSpec, RandomStreams, tree_map

__all__ = ["TrainedPolicy", "built_agent", "find_policy", "velocity_module"]

_ACTING = {"bc": "flow", "trqam": "fast", "sqam": "fast", "qam": "fast"}
"""Attribute of the flow that an agent acts by."""


@dataclass(frozen=True, slots=True)
class TrainedPolicy:
    """The agent of one run as its newest checkpoint has it.

    Attributes:
        agent: with one replica, on the CPU.
        record: what its policy reads and writes.
        cell: what it was trained for.
        phase: `pretrain`, `offline` or `online`.
        step: of the checkpoint.
        variant: swept settings.
    """

    agent: Any
    record: DomainRecord
    cell: Cell
    phase: str
    step: int
    variant: str = ""


def find_policy(
    directory: Path,
    *,
    agent: str | None = None,
    task: str | None = None,
    seed: int | None = None,
    variant: str | None = None,
    phase: str | None = None,
    networks: OwnModule | None = None,
    critic: OwnModule | None = None,
) -> TrainedPolicy:
    """The policy of one run; what is not given must follow from the rest.

    The cloned policy (agent `bc`) is taken only when asked for, and of several phases the last.

    Args:
        directory: run directory.
        agent: name of the agent.
        task: name of the task, or its end such as ``task2-v0``, ``task2`` or ``2``; 1 is also the
            task of own data.
        seed: of the run.
        variant: swept settings, as the tables name them.
        phase: `pretrain`, `offline` or `online`.
        networks: a module like the one that the run fine-tuned, a function that makes one, or
            `module:function`; its parameters are replaced.
        critic: likewise, where the run has a critic of the user's own.

    Raises:
        ValueError: no run or several fit; the values that there are of each option are listed. Or
            the run has a policy of the user's own, and none is given.
        ResultsError: the directory is no run, or its files cannot be read.
        CheckpointError: there is no checkpoint yet, or it is of other settings.
    """
    run = read_run(directory)
    wanted = {"agent": agent, "seed": seed, "variant": variant}
    chosen = [
        (cell, its_phase)
        for cell in run.cells
        for its_phase in cell.final_steps
        if all(value in (None, getattr(cell, name)) for name, value in wanted.items())
        and (agent is not None or not is_cloning(cell.agent) or phase == Phase.PRETRAIN)
        and (task is None or is_task(cell.task, task))
        and phase in (None, its_phase)
    ]
    if phase is None and chosen:
        chosen = _of_the_last_phase(directory, chosen)
    if not chosen:
        given = {**wanted, "task": task, "phase": phase}
        asked = " ".join(
            f"--{name} {quote(str(value))}" for name, value in given.items() if value is not None
        )
        everything = [(cell, its) for cell in run.cells for its in cell.final_steps]
        raise ValueError(
            f"no policy in {directory} fits {asked or 'the default, any agent but bc'}; there are "
            + _choices(everything, fewest=1)
        )
    if len(chosen) > 1:
        raise ValueError(
            f"several policies fit in {directory}; choose one: {_choices(chosen, fewest=2)}"
        )
    (planned, its_phase) = chosen[0]
    if agent is not None:
        AGENTS.get(agent)  # The user names it, so its module may be imported.
    return _load(directory, run, planned, its_phase, networks, critic)


def _of_the_last_phase(
    directory: Path, cells: list[tuple[PlannedCell, str]]
) -> list[tuple[PlannedCell, str]]:
    """Those of the last phase that has begun."""
    last = max((its for _, its in cells), key=lambda its: list(Phase).index(Phase(its)))
    if any(_checkpoints(directory, cell).is_dir() for cell, its in cells if its == last):
        return [(cell, its) for cell, its in cells if its == last]
    return [(cell, its) for cell, its in cells if its != last] or cells


def _choices(cells: Sequence[tuple[PlannedCell, str]], fewest: int) -> str:
    """The values of each option as a shell takes them, where there are at least so many."""
    values = {
        name: list(dict.fromkeys(str(getattr(cell, name)) for cell, _ in cells))
        for name in ("agent", "task", "seed", "variant")
    }
    values["variant"] = [text for text in values["variant"] if text]  # Clones have none.
    values["phase"] = list(dict.fromkeys(its for _, its in cells))
    return "; ".join(
        f"--{name} {' or '.join(map(quote, found))}"
        for name, found in values.items()
        if len(found) >= fewest
    )


def _named(cell: PlannedCell, phase: str) -> str:
    variant = f" ({cell.variant})" if cell.variant else ""
    return f"{cell.agent}{variant} on {cell.task}, seed {cell.seed}, {phase}"


def _checkpoints(directory: Path, cell: PlannedCell) -> Path:
    return directory / "packs" / cell.pack / "checkpoints"


def _load(
    directory: Path,
    run: RunRecord,
    planned: PlannedCell,
    phase: str,
    networks: OwnModule | None = None,
    critic: OwnModule | None = None,
) -> TrainedPolicy:
    checkpoint = load_checkpoint(_checkpoints(directory, planned))
    if checkpoint is None:
        raise CheckpointError(f"{_named(planned, phase)} has no checkpoint in {directory} yet")
    record = DomainRecord.read(directory, planned.domain)
    if planned.pack not in run.packs:
        raise ResultsError(f"{directory}/run.json has no settings of {planned.pack}")
    agent = built_agent(
        planned.agent,
        run.packs[planned.pack],
        record,
        RandomStreams([0]),
        directory,
        networks,
        critic,
    )
    cell = Cell(planned.domain, 0, planned.task, planned.agent, planned.seed)
    _fill(agent, checkpoint, cell)
    return TrainedPolicy(agent, record, cell, phase, checkpoint.step, planned.variant)


def built_agent(
    name: str,
    pack: Mapping[str, Any],
    record: DomainRecord,
    streams: RandomStreams,
    where: Path,
    networks: OwnModule | None = None,
    critic: OwnModule | None = None,
) -> Any:
    """An agent with the settings of a stored run, with fresh parameters.

    Args:
        name: in the registry.
        pack: as `run.json` has it; settings that this version does not know are left out.
        record: what the run's policies read and write.
        streams: a replica each.
        where: the run directory.
        networks: as of :func:`find_policy`.
        critic: as of :func:`find_policy`.

    Raises:
        ResultsError: there is no such agent, or a setting is none that a run has.
        ValueError: the agent is of a module that the user did not name, or its policy is.
    """
    config = stored_config(name, pack.get("settings"), where)
    problem = record.problem
    found = pack.get("networks")
    if found is not None:
        if networks is None:
            raise ValueError(
                f"{where} fine-tuned a policy of your own, {found['policy']}; to make it, give "
                "policy=, a module like it or a function that makes one"
            )
        if found.get("critic") == CONTEXT:
            critic = CONTEXT
        if critic is None and found.get("critic"):
            raise ValueError(
                f"{where} has a critic of your own, {found['critic'].partition('@')[0]}, which "
                "num_action_samples may ask; give critic=, a module like it or a function that "
                "makes one"
            )
        mask = found.get("action_mask")
        own = networks_of(
            networks,
            convention=found["convention"],
            critic=critic if found.get("critic") else None,
            action_mask=json.loads(mask) if mask else None,
        )
        counting = own.counting(problem.horizon, problem.action_dim)
        problem = replace(problem, policy=own.policy, critic=own.critic, action_mask=counting)
        if not own.is_perceptron:
            problem = replace(problem, normalizer=_blank_normalizer(problem.spec))
    return AGENTS[name].agent(config, problem, streams)


def _blank_normalizer(spec: ObservationSpec) -> ObservationNormalizer:
    """One for these leaves, to be filled."""
    rows: Any = tree_map(lambda leaf: torch.zeros(2, *leaf.shape, dtype=leaf.dtype), spec)
    return ObservationNormalizer.fit(rows)


def _fill(agent: nn.Module, checkpoint: Checkpoint, cell: Cell) -> None:
    """Give an agent of one replica the parameters of the one that trained for a cell."""
    replica = trained_replica(checkpoint, cell)
    found = part(checkpoint.tensors, "agent.")
    mine: dict[str, Tensor] = {}
    for name, tensor in agent.state_dict().items():
        if name not in found:
            raise CheckpointError(f"{checkpoint.path} has no tensor {name}")
        value = found[name]
        mine[name] = value if value.shape == tensor.shape else value[replica : replica + 1]
        if mine[name].shape != tensor.shape:
            raise CheckpointError(
                f"{checkpoint.path}: {name} has shape {tuple(value.shape)} for all runs, "
                f"expected {tuple(tensor.shape)} for one"
            )
    with torch.no_grad():
        agent.load_state_dict(mine)


def velocity_module(trained: TrainedPolicy) -> nn.Module:
    """The velocity model by which a trained agent acts.

    Raises:
        ValueError: it acts by more than a flow.
    """
    name = _ACTING.get(trained.cell.agent)
    if name is None:
        raise ValueError(
            f"agent {trained.cell.agent!r} does not act by a flow alone; call the policy, which "
            f"has all of it, or fine-tune with {', '.join(n for n in _ACTING if n != 'bc')}"
        )
    policy: nn.Module = getattr(trained.agent, name)
    return policy.module if isinstance(policy, ModulePolicy) else policy
