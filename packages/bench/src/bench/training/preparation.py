"""A domain made ready for training: data found or made, put on the device, and recorded."""

from dataclasses import dataclass, replace

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
from bench.training.tables import Tables, load_fitting

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
    tables: Tables
    problem: Problem

    @classmethod
    def of(cls, plan: Plan, domain: Domain, stages: Display) -> "PreparedDomain":
        """Read a domain's data, made first where that was asked for.

        Raises:
            DataMissing: they are not there, and the plan does not make them.
        """
        data = _load(plan, domain, stages)
        tables = Tables.of(data, plan.device, standardise=plan.suite.protocol.standardise)
        spread = tables.action_std
        problem = Problem(len(tables.normalizer.shift), len(spread), domain.horizon, spread)
        if plan.networks is not None:
            own = plan.networks
            problem = replace(problem, policy=own.policy, learning_rates=own.learning_rates)
        return cls(domain, data, tables, problem)

    def announce(self, plan: Plan, console: Console) -> None:
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
