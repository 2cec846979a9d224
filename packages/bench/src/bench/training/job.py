"""The job of a plan: data, behaviour cloning, both phases, evaluation, tables."""

import gc
import logging
import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from bench.agents import AGENTS, BC, Agent, draw
from bench.errors import CheckpointError
from bench.results import PHASES, FinalTable, final_table, print_table, write_table
from bench.simulation import SimulatorPool
from bench.storage import RunLock, checkpoint_steps, log_to, package_versions
from bench.training.cells import Pack
from bench.training.compilation import compile_agent
from bench.training.console import Display, Stages, standard_output
from bench.training.online import OnlineExperience, load_offline_result, replay
from bench.training.options import Plan, starts_from_clone
from bench.training.planned import record_plan
from bench.training.precision import emulation_warning, float32_products
from bench.training.preparation import PreparedDomain
from bench.training.pretraining import FlowCache
from bench.training.processes import PackTraining, train_in_processes
from bench.training.processor import keep_freed_memory
from bench.training.recorder import PackRecorder, protocol_fingerprint
from bench.training.stopping import heeding_signals
from bench.training.trainer import Trainer
from qlearn import ChunkSampler, FlowActor, PrefetchingSampler, RandomStreams

__all__ = ["Job"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Job:
    """Runs a plan to its end; the same plan on the same directory continues.

    Attributes:
        plan: what to do.
        command: the command line, for the record.
        console: where people read.
    """

    plan: Plan
    command: list[str] = field(default_factory=lambda: ["bench", *sys.argv[1:]])
    console: Console = field(default_factory=standard_output)
    problems: list[str] = field(default_factory=list, init=False)

    def run(self) -> int:
        """Everything; returns the exit status, 1 where a run failed and the others finished."""
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
                train = stack.enter_context(self.training())
                for domain in plan.suite.domains:
                    for pack in plan.in_order:
                        if pack.domain.name == domain.name:
                            train(pack, stages)
            else:
                for domain in plan.suite.domains:
                    PreparedDomain.of(plan, domain, stages).announce(plan, self.console)
                self.problems += train_in_processes(plan, _training_in_a_process, stages)
        return self._finish()

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
                if name not in prepared:
                    prepared.clear()  # one domain's data at a time
                    prepared[name] = PreparedDomain.of(self.plan, domains[name], display)
                    if announce:
                        prepared[name].announce(self.plan, self.console)
                known = len(self.problems)
                self._train(pack, prepared[name], pool, display)
                gc.collect()  # a compiled agent holds itself, and a GPU's memory
                return self.problems[known:]

            yield train

    def _train(
        self,
        pack: Pack,
        prepared: PreparedDomain,
        pool: SimulatorPool,
        stages: Display,
    ) -> None:
        """Train a pack to its end, from where it was; problems are noted and the job goes on."""
        plan, config = self.plan, self.plan.configs[pack.name]
        streams = RandomStreams(pack.replica_seeds, plan.device)
        agent: Agent = AGENTS[pack.agent].agent(config, prepared.problem, streams)
        unfit: dict[int, str] = {}
        if pack.online and not pack.from_scratch:
            offline = plan.directory / "packs" / replace(pack, online=False).name
            try:
                checkpoints = offline / "checkpoints"
                unfit = load_offline_result(checkpoints, pack, agent, str(plan.device))
            except CheckpointError as error:  # every run was stopped there: the other packs go on
                self.problems.append(str(error))
                self.console.print(f"left out: {error}", style="red", markup=False)
                return
        elif starts_from_clone(pack):
            clone = FlowActor(
                streams.replicas,
                prepared.problem.observation_dim,
                prepared.problem.chunk_dim,
                config.actor_hidden,
                layer_norm=config.actor_layer_norm,
                streams=streams.spawn("clone"),
            )
            unfit = self._cache(pack, prepared).load([cell.seed for cell in pack.cells], clone)
            agent.start_from(clone)
        if plan.compiled:
            compile_agent(agent)
        replicas_tasks = (
            [0] * streams.replicas
            if pack.agent == "bc"
            else [prepared.domain.tasks.index(cell.task) for cell in pack.cells]
        )
        data = self._sampler(pack, prepared, agent, replicas_tasks)
        directory = plan.directory / "packs" / pack.name
        versions = package_versions()
        recorder = PackRecorder(
            pack,
            agent,
            config,
            prepared.problem,
            prepared.tables.normalizer,
            pool,
            plan.device,
            directory,
            {
                "data_source": prepared.data.source,
                "data_fingerprint": prepared.data.fingerprint,
                "protocol_fingerprint": protocol_fingerprint(pack, config),
                "mujoco_version": versions["mujoco"],
                "ogbench_version": versions["ogbench"],
                "torch_version": versions["torch"],
                "device": str(plan.device),
                "precision": plan.precision,
            },
            track=plan.track,
            overlap=pool.workers > 0,
        )
        captured = plan.captured and not prepared.tables.streamed
        trainer = Trainer(pack, agent, streams, data, directory, recorder, plan.precision, captured)
        trainer.unfit = unfit
        if plan.captured and not captured:
            # A graph holds what the GPU does, and these batches come from the host.
            self.console.print(
                f"{pack.name}: not captured, as its data are read from the disk (--data-memory)",
                style="yellow", markup=False,
            )  # fmt: skip
        title = f"{pack.agent} on {pack.domain.name}, {len(pack.cells)} runs"
        with ExitStack() as stack:
            stack.callback(recorder.close)
            if isinstance(data, PrefetchingSampler):
                stack.enter_context(data)
            if pack.online:
                acting = streams.spawn("acting")
                experience = OnlineExperience.of(
                    pack,
                    prepared.problem,
                    prepared.tables.normalizer,
                    acting,
                    config.discount,
                    workers=pool.workers,
                    limits=plan.limits,
                )
                stack.enter_context(experience.environments)
                trainer.experience = experience
                trainer.sampler = replay(pack, data, experience.ring)
                title += " online"
            unit = "environment steps" if pack.online else "updates"
            trainer.tick = stack.enter_context(stages.stage(title, pack.steps, unit))
            if isinstance(agent, BC):
                self._clone(trainer, agent, self._cache(pack, prepared))
            else:
                trainer.run()
            if isinstance(data, PrefetchingSampler) and data.batches:
                waited = (
                    f"{pack.name}: waited {data.waited:.2f} s for {data.batches:,} batches from "
                    f"the disk, {data.waited / data.batches * 1e3:.2f} ms each"
                )
                _log.info(waited)
                self.console.print(waited, markup=False, highlight=False)
        self.problems += [str(failure) for failure in trainer.failures]

    def _sampler(
        self, pack: Pack, prepared: PreparedDomain, agent: Agent, tasks: list[int]
    ) -> ChunkSampler:
        """Chunks of the data set; of one on the disk, read ahead of the updates."""
        horizon, mode = pack.domain.horizon, pack.protocol.chunks
        discount = getattr(self.plan.configs[pack.name], "discount", 1.0)
        episodes = prepared.tables.episodes
        if not prepared.tables.streamed:
            return ChunkSampler(episodes, horizon, discount, mode=mode, tasks=tasks)
        noise = agent.noise(pack.protocol.batch_size)
        return PrefetchingSampler(
            episodes,
            horizon,
            discount,
            mode=mode,
            tasks=tasks,
            device=self.plan.device,
            between=lambda streams: draw(streams, noise),
        )

    def _clone(self, trainer: Trainer, agent: BC, cache: FlowCache) -> None:
        """Behaviour cloning, taken from the cache where an earlier run has been through it."""
        seeds = trainer.pack.seeds
        if not cache.holds(seeds) or checkpoint_steps(trainer.checkpoints):
            trainer.run()
        else:
            cache.load(seeds, agent.flow)
            trainer.finish()
        cache.save(seeds, agent.flow, trainer.failed_replicas)

    def _cache(self, pack: Pack, prepared: PreparedDomain) -> FlowCache:
        """Where the flows that a pack starts from are kept."""
        source = self.plan.pretraining_of(pack)
        return FlowCache.of(
            self.plan.directory.parent / "pretrained",
            source,
            self.plan.configs[source.name],
            prepared.data.fingerprint,
            self.plan.precision,
        )

    def _finish(self) -> int:
        """Print and write the table, and say where things are and what to run next."""
        directory = self.plan.directory
        table = final_table([directory])
        print_table(table, self.console)
        if any(domain.own is not None for domain in self.plan.suite.domains):
            self.console.print(_returns(table))
        files = write_table(table, directory)
        self.console.print(f"table: {files[0]} (and .csv, .parquet beside it)", markup=False)
        self.console.print(f"curves: bench report {shlex.quote(str(directory))}", markup=False)
        plain = not self.plan.online and not any(pack.variant for pack in self.plan.packs)
        if self.plan.suite.name == "quick" and plain and table.coverage.complete:
            self.console.print(
                "next: more seeds (--seeds 3 --out runs/quick-3), another agent (bench agents), "
                "the online phase (bench online --suite quick), or the paper's protocol: "
                "bench offline --suite ogbench50 --dry-run",
                markup=False,
            )
        return 0 if table.coverage.complete and not self.problems else 1


@contextmanager
def _training_in_a_process(plan: Plan, simulators: int) -> Iterator[PackTraining]:
    job = Job(plan, console=Console(quiet=True))
    if any(domain.own is not None for domain in plan.suite.domains):
        # Limits hold in processes of their own; nobody vouches for a user's environment.
        simulators = max(1, simulators)
    with (
        log_to(plan.directory / "log.jsonl"),
        job.training(simulators, announce=False) as train,
    ):
        yield train


def _returns(table: FinalTable) -> Table:
    """Returns of the last evaluation, where success alone says too little."""
    shown = Table("phase", "agent", "seed", "step", "mean return", title="returns")
    in_time = pl.col("phase").cast(pl.Enum(PHASES))
    for row in table.cells.sort(in_time, "agent", "seed").iter_rows(named=True):
        if row["return_mean"] is not None:
            agent = " ".join(filter(None, (row["agent"], row["variant"])))
            value = f"{row['return_mean']:,.2f}"
            shown.add_row(row["phase"], agent, str(row["seed"]), f"{row['step']:,}", value)
    return shown
