"""The job of a plan: data, behaviour cloning, both phases, evaluation, tables."""

import gc
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from rich.console import Console

from bench.agents import BC
from bench.errors import CheckpointError
from bench.experiment import is_captured
from bench.results import final_table, write_table
from bench.simulation import SimulatorPool
from bench.storage import RunLock, has_checkpoints, hold_directory, log_to
from bench.training.allocator import keep_freed_memory
from bench.training.assembly import (
    build_agent,
    build_experience,
    build_recorder,
    build_sampler,
    flow_cache,
)
from bench.training.cells import Pack
from bench.training.console import Display, Stages, standard_output
from bench.training.domain_data import PreparedDomain
from bench.training.left_out import LeftOut, PackFailedError, pack_failure
from bench.training.network_checks import check_networks
from bench.training.online import replay
from bench.training.precision import emulation_warning, float32_products
from bench.training.pretraining import FlowCache
from bench.training.processes import PackTraining, train_in_processes
from bench.training.recorder import Evaluator
from bench.training.run_plan import Plan
from bench.training.run_record import record_plan
from bench.training.stopping import heeding_signals
from bench.training.trainer import Trainer
from qlearn import ChunkSampler, PrefetchingSampler, RandomStreams

__all__ = ["Job"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """Runs a plan to its end; the same plan on the same directory continues.

    Attributes:
        plan: what to do.
        command: the command line, for the record.
        console: where people read.
        evaluator: evaluates instead of the simulators.
    """

    plan: Plan
    command: list[str] = field(default_factory=lambda: ["bench", *sys.argv[1:]])
    console: Console = field(default_factory=standard_output)
    evaluator: Evaluator | None = None
    problems: list[str] = field(default_factory=list, init=False)

    def run(self) -> None:
        """Train everything and write the result table; runs that were stopped are in it."""
        plan, directory = self.plan, self.plan.directory
        with ExitStack() as stack:
            stack.enter_context(heeding_signals())
            stack.enter_context(RunLock(directory, self.command))
            stack.enter_context(log_to(directory / "log.jsonl"))
            record_plan(plan, self.command)
            if warning := emulation_warning(plan.precision, plan.device):
                self.console.print(f"warning: {warning}", style="yellow", markup=False)
            stages = stack.enter_context(Stages(self.console))
            if plan.processes == 1:
                simulators = None if self.evaluator is None else 0
                train = stack.enter_context(self.training(simulators))
                left_out = LeftOut(plan)
                for domain in plan.suite.domains:
                    for pack in plan.in_order:
                        if pack.domain.name != domain.name or left_out.reject(pack):
                            continue
                        try:
                            self.problems += train(pack, stages)
                        except PackFailedError as error:
                            left_out.add(pack, str(error))
                self.problems += left_out.problems
            else:
                for domain in plan.suite.domains:
                    PreparedDomain.of(plan, domain, stages).report_data(plan, self.console)
                self.problems += train_in_processes(plan, _training_in_a_process, stages)
        write_table(final_table([directory]), directory)

    @contextmanager
    def training(
        self, simulators: int | None = None, *, announce: bool = True
    ) -> Iterator[PackTraining]:
        """The function that trains a pack in this process.

        Args:
            simulators: worker processes of evaluations and of the online phase; None for one per
                core, 0 for this process.
            announce: say and record what data are trained on.
        """
        if self.plan.device.type == "cpu":
            keep_freed_memory()
        elif self.plan.device.index is not None:
            torch.cuda.set_device(self.plan.device)
        domains = {domain.name: domain for domain in self.plan.suite.domains}
        prepared: dict[str, PreparedDomain] = {}
        products = float32_products(self.plan.precision, self.plan.device)
        with products, SimulatorPool(simulators, limits=self.plan.limits) as pool:

            def train(pack: Pack, display: Display) -> list[str]:
                name = pack.domain.name
                try:
                    if name not in prepared:
                        prepared.clear()  # one domain's data at a time
                        prepared[name] = PreparedDomain.of(self.plan, domains[name], display)
                        if announce:
                            prepared[name].report_data(self.plan, self.console)
                    return self._train(pack, prepared[name], pool, display)
                except BaseException as error:  # the boundary of one pack: the others go on
                    log = self.plan.directory / "log.jsonl"
                    raise pack_failure(error, pack, log) from error
                finally:
                    gc.collect()  # a compiled agent holds itself, and a GPU's memory

            yield train

    def _train(
        self,
        pack: Pack,
        prepared: PreparedDomain,
        pool: SimulatorPool,
        stages: Display,
    ) -> list[str]:
        """Train a pack to its end, from where it was; returns why runs of it were stopped."""
        plan = self.plan
        streams = RandomStreams(pack.replica_seeds, plan.device)
        try:
            agent, unfit = build_agent(plan, pack, prepared, streams)
        except CheckpointError as error:  # every run was stopped there
            raise PackFailedError(str(error)) from error
        data = build_sampler(plan, pack, prepared, agent, streams.replicas)
        if plan.networks is not None:
            check_networks(plan.networks.record.policy, agent, prepared.problem, data, streams)
        recorder = build_recorder(plan, pack, prepared, agent, pool, self.evaluator)
        captured = is_captured(plan.mode) and not prepared.tables.streamed
        if is_captured(plan.mode) and not captured:
            # A graph holds what the GPU does, and these batches come from the host.
            self.console.print(
                f"{pack.name}: not captured, as its data are read from the disk (--data-memory)",
                style="yellow", markup=False,
            )  # fmt: skip
        trainer = Trainer(
            pack, agent, streams, data, recorder.directory, recorder, plan.precision, captured
        )
        trainer.unfit = unfit
        title = f"{pack.agent} on {pack.domain.name}, {len(pack.cells)} runs"
        with ExitStack() as stack:
            stack.callback(recorder.close)
            if isinstance(data, PrefetchingSampler):
                stack.enter_context(data)
            if pack.online:
                experience = build_experience(plan, pack, prepared, streams, pool.workers)
                stack.enter_context(experience.environments)
                trainer.experience = experience
                trainer.sampler = replay(pack, data, experience.ring)
                title += " online"
            unit = "environment steps" if pack.online else "updates"
            trainer.tick = stack.enter_context(stages.stage(title, pack.steps, unit))
            if isinstance(agent, BC):
                self._clone(trainer, agent, flow_cache(plan, pack, prepared))
            else:
                trainer.run()
            self._tell_waiting(pack, data)
        return [str(failure) for failure in trainer.failures]

    def _tell_waiting(self, pack: Pack, data: ChunkSampler) -> None:
        """Say how long updates waited for the disk."""
        if not isinstance(data, PrefetchingSampler) or not data.batches:
            return
        waited = (
            f"{pack.name}: waited {data.waited:.2f} s for {data.batches:,} batches from the disk, "
            f"{data.waited / data.batches * 1e3:.2f} ms each"
        )
        _log.info(waited)
        self.console.print(waited, markup=False, highlight=False)

    def _clone(self, trainer: Trainer, agent: BC, cache: FlowCache) -> None:
        """Behaviour cloning, taken from the cache where an earlier run has been through it."""
        seeds = trainer.pack.seeds
        if not cache.holds(seeds) or has_checkpoints(trainer.checkpoints):
            trainer.run()
        else:
            cache.load(seeds, agent.flow)
            trainer.finish()
        cache.save(seeds, agent.flow, trainer.failed_replicas)


@contextmanager
def _training_in_a_process(plan: Plan, simulators: int) -> Iterator[PackTraining]:
    job = Job(plan, console=Console(quiet=True))
    if not all(domain.source.published for domain in plan.suite.domains):
        # Limits hold in processes of their own; nobody vouches for a user's environment.
        simulators = max(1, simulators)
    hold_directory(plan.directory)  # the parent has the lock; every process notices a lost run
    with (
        log_to(plan.directory / "log.jsonl"),
        job.training(simulators, announce=False) as train,
    ):
        yield train
