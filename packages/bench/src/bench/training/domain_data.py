"""A domain made ready for training: data found or made, put on the device, and recorded."""

from dataclasses import dataclass, replace

import torch
from rich.console import Console

from bench.agents import Problem
from bench.data import (
    DataMissing,
    MappedTaskData,
    TaskData,
    default_data_dir,
    folder_error,
    generate,
)
from bench.storage import record_data
from bench.suites import Domain
from bench.training.console import Display
from bench.training.domain_record import DomainRecord
from bench.training.options import Plan
from bench.training.own_policy import PlannedNetworks
from bench.training.training_data import TrainingData, load_fitting
from qlearn import EpisodeData, LeafSpec, ObservationNormalizer

__all__ = ["PreparedDomain"]


@dataclass(frozen=True, slots=True)
class PreparedDomain:
    """A domain's data on the training device.

    Attributes:
        domain: whose data they are.
        data: as read, with the rewards of the domain's tasks in their order.
        tables: the rows for sampling.
        problem: sizes of the networks' inputs and outputs.
    """

    domain: Domain
    data: TaskData | MappedTaskData
    tables: TrainingData
    problem: Problem

    @classmethod
    def of(cls, plan: Plan, domain: Domain, stages: Display) -> "PreparedDomain":
        """Read a domain's data, made first where that was asked for.

        Raises:
            DataMissing: they are not there, and the plan does not make them.
        """
        data = _load(plan, domain, stages)
        tables = TrainingData.of(data, plan.device, standardise=plan.suite.protocol.standardise)
        spread = tables.action_std
        problem = Problem(len(tables.normalizer.shift), len(spread), domain.chunk_length, spread)
        if plan.networks is not None:
            problem = _with_networks(problem, plan.networks, tables.episodes)
        return cls(domain, data, tables, problem)

    def report_data(self, plan: Plan, console: Console) -> None:
        """Say and record what data the domain is trained on."""
        data, domain = self.data, self.domain
        folder = str(data.paths[0].parent.absolute())
        origin = {"fingerprint": data.fingerprint, "source": data.source, "folder": folder}
        record_data(plan.directory, data.dataset, origin)
        record = DomainRecord.of(domain, self.problem, self.tables.normalizer)
        record.keep(plan.directory, domain.name)
        console.print(
            f"data: {data.dataset}, {data.transitions:,} transitions, {data.source}, "
            f"fingerprint {data.fingerprint[:12]}; {self.tables.describe()}"
        )
        if (note := domain.source.describe_success()) is not None:
            console.print(note, markup=False)


def _with_networks(problem: Problem, own: PlannedNetworks, data: EpisodeData) -> Problem:
    """A problem that is solved by the user's networks, on observations as the data have them."""
    problem = replace(
        problem,
        policy=own.policy,
        critic=own.critic,
        micro_batches=own.record.micro_batches,
        learning_rates=own.learning_rates,
    )
    problem = replace(problem, action_mask=own.counting(problem.horizon, problem.action_dim))
    if own.is_perceptron:
        return problem
    spec = data.spec
    one_vector = isinstance(spec, LeafSpec) and len(spec.shape) == 1 and spec.dtype == torch.float32
    return replace(
        problem,
        observation=None if one_vector else spec,
        normalizer=ObservationNormalizer.fit(data.observations),
    )


def _load(plan: Plan, domain: Domain, stages: Display) -> TaskData | MappedTaskData:
    if plan.given is not None:
        return plan.given
    tasks = [domain.task_name(task) for task in domain.tasks]
    folder, limit = plan.data_dir, plan.data_memory
    try:
        return load_fitting(domain.dataset, tasks, folder, limit, sparse=domain.sparse)
    except DataMissing:
        if not plan.generate:
            raise
    with stages.stage(f"making {domain.dataset}", domain.transitions, "transitions") as tell:
        try:
            generate(
                domain.dataset,
                folder or default_data_dir(),
                policy=plan.walkers,
                progress=lambda done, total: tell(domain.transitions * done // total),
            )
        except OSError as error:
            raise folder_error(error) from error
    return load_fitting(domain.dataset, tasks, folder, limit, sparse=domain.sparse)
