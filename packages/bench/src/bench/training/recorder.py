"""Turns what a trainer reports into table rows: training metrics, evaluations, failures."""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from bench.agents import Agent, Problem
from bench.recorded import recorded
from bench.results import CELL_COLUMNS, EVALUATIONS, TRAINING, ResultWriter, metric_rows
from bench.simulation import ArrayTree, Evaluation, SimulatorPool, evaluate
from bench.tracking import Curves, TrackedCell
from bench.training.cells import Cell, Pack
from bench.training.policy import Normalizer, PackPolicy
from bench.training.stopping import held_back
from bench.training.trainer import BegunEvaluation, Failure
from qlearn import RandomStreams

__all__ = ["Evaluator", "PackRecorder", "protocol_fingerprint"]

_log = logging.getLogger(__name__)

Evaluator = Callable[[Agent, Pack, int], Evaluation | None]
"""Evaluates the agent of a pack of one run at a step; None where nothing can be played."""


def protocol_fingerprint(pack: Pack, config: Any) -> str:
    """Hash of everything that decides a pack's final numbers, equal for equal settings.

    Neither how often there is an evaluation nor, for cloned policies, what comes after the cloning
    is part of it: runs that differ there share their clones' rows.
    """
    domain = recorded(pack.domain)
    for unrelated in ("tasks", "settings", "agents"):
        del domain[unrelated]
    if not (pack.online and pack.protocol.online.data == "shard"):
        domain.pop("shard", None)
    if (own := domain.pop("own")) is not None:
        del own["dataset"]  # where the data lie; what they are has its own fingerprint
        domain |= own
    protocol = recorded(pack.protocol)
    unrelated_steps = ["evaluate_every", "log_every", "checkpoint_every"]
    if not pack.online:
        unrelated_steps.append("online")
    if pack.clones:
        unrelated_steps.append("offline_steps")
    for name in unrelated_steps:
        del protocol[name]
    content = [protocol, domain, pack.agent, recorded(config)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True)
class PackRecorder:
    """The tables of one pack.

    Attributes:
        pack: whose rows these are.
        agent: evaluated as it is at the time of the call.
        config: its settings.
        problem: sizes.
        normalizer: of the training data.
        pool: simulators.
        device: of the evaluation's random streams.
        directory: the pack's folder, where the two tables lie.
        shared: columns that are the same in every row (data, versions, protocol, precision).
        overlap: whether training goes on while an evaluation is played.
        track: names of the trackers that show the curves, see `bench.tracking`.
        evaluator: plays the episodes instead of the simulators.
    """

    pack: Pack
    agent: Agent
    config: Any
    problem: Problem
    normalizer: Normalizer
    pool: SimulatorPool
    device: torch.device
    directory: Path
    shared: Mapping[str, Any]
    overlap: bool = False
    track: Sequence[str] = ()
    evaluator: Evaluator | None = None
    _curves: Curves = field(init=False)
    _evaluations: ResultWriter = field(init=False)
    _training: ResultWriter = field(init=False)
    _thread: ThreadPoolExecutor = field(init=False)
    _begun: tuple[BegunEvaluation, Future[tuple[Evaluation | None, float]]] | None = field(
        default=None, init=False
    )
    _stopped: dict[Cell, int] = field(default_factory=dict, init=False)
    _closed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="evaluation")
        self._evaluations = ResultWriter(self.directory / "evaluations.parquet", EVALUATIONS)
        self._training = ResultWriter(self.directory / "training.parquet", TRAINING)
        self._curves = Curves(
            self.track,
            self.directory.parent.parent,
            [self._tracked(cell) for cell in self.pack.cells],
            self.pack.updates_before,
        )

    def close(self) -> None:
        """Write the curves out; an evaluation that is still played is left to the next run."""
        self._closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._curves.close()

    def restart(self, step: int, failures: Sequence[Failure] = ()) -> None:
        """Forget rows after ``step``; training continues from there, without what had failed."""
        indices = {cell: index for index, cell in enumerate(self.pack.cells)}
        self._curves.restart(step, {indices[f.cell]: (f.step, str(f)) for f in failures})
        self._warn_of_lost_tables(step)
        self._evaluations.truncate(self.pack.phase, step)
        self._training.truncate(self.pack.phase, step)
        # Another one than that of earlier rows where the run has been made longer.
        fingerprint = self.shared.get("protocol_fingerprint")
        if fingerprint is not None:
            self._evaluations.rewrite(
                lambda rows: rows.with_columns(protocol_fingerprint=pl.lit(fingerprint))
            )
        self._stopped = {}
        known = self._evaluations.frame.filter(
            pl.col("failure").is_not_null(), phase=self.pack.phase
        ).select(*CELL_COLUMNS, "step")
        for failure in failures:
            row = self._cell(failure.cell) | {"step": failure.step}
            if known.filter(**row).height:
                self._stopped[failure.cell] = failure.step
            else:  # a table of version 0.1, or one that was lost
                self.failed(failure)

    def forget(self, step: int, *, training: bool, evaluation: bool) -> None:
        """Drop what was recorded at ``step`` because it was the last; of failed runs it stays."""
        here = (pl.col("phase") == self.pack.phase) & (pl.col("step") == step)
        if training:
            self._training.rewrite(lambda rows: rows.filter(~here))
        if evaluation:
            gone = here & pl.col("failure").is_null()
            self._evaluations.rewrite(lambda rows: rows.filter(~gone))

    def _warn_of_lost_tables(self, step: int) -> None:
        """Say so where a table should have rows from before a step, but is gone."""
        protocol, clones = self.pack.protocol, self.pack.clones
        for writer, first in (
            (self._training, protocol.log_every),
            # A signal may have left the last evaluation before the step to be played yet.
            (self._evaluations, 2 * protocol.evaluate_every),
        ):
            due = first <= step and not (clones and writer is self._evaluations)
            if due and not writer.path.exists():
                _log.warning(
                    "the table %s is gone: its rows up to %s step %d are lost, later ones follow",
                    writer.path, self.pack.phase, step,
                )  # fmt: skip

    def training(self, step: int, metrics: Mapping[str, list[float]]) -> None:
        """One row per cell and metric."""
        rows: list[dict[str, Any]] = []
        values: dict[int, dict[str, float]] = {}
        for index, cell in enumerate(self.pack.cells):
            if self._is_stopped(cell, step):
                continue
            values[index] = self._of(index, metrics)
            rows += metric_rows(self._cell(cell), self.pack.phase, step, values[index])
        self._training.append(rows)
        for index, shown in values.items():
            self._curves.log(index, "training", step, shown)

    def evaluate(self, step: int, metrics: Mapping[str, list[float]], seconds: float) -> None:
        """Evaluate every cell on its own episodes and write a row of each that is not stopped.

        With ``overlap`` this begins the evaluation of a copy of the agent and returns; the rows are
        written by the next :meth:`wait`. They hold the same numbers.
        """
        self.wait()
        if all(self._is_stopped(cell, step) for cell in self.pack.cells):
            return
        if not self.overlap:
            self._record(step, metrics, seconds, self._play(self.agent, step))
            return
        # Acting needs no optimiser state.
        copied = copy.deepcopy(self.agent, {id(self.agent.learner): None})
        stream = self._stream_beside_training()
        playing = self._thread.submit(self._beside, stream, copied, step, torch.get_num_threads())
        self._begun = BegunEvaluation(step, copied, metrics, seconds), playing

    def wait(self, before: int | None = None) -> None:
        """Write the rows of an evaluation that was begun (before a step), once it has ended."""
        if self._begun is None or (before is not None and self._begun[0].step >= before):
            return
        of, playing = self._begun
        self._record(of.step, of.metrics, of.seconds, playing.result())

    def still_played(self, before: int) -> BegunEvaluation | None:
        """The evaluation that was begun before a step, unless it has ended."""
        if self._begun is None or self._begun[0].step >= before or self._begun[1].done():
            return None
        return self._begun[0]

    def has_evaluated(self, step: int) -> bool:
        """Whether the table has this step's evaluation of every run that is not stopped."""
        rows = self._evaluations.frame.filter(
            pl.col("seconds_evaluation").is_not_null(), phase=self.pack.phase, step=step
        )
        found = set(rows.select("task", "seed").iter_rows())
        return all(
            (cell.task_name, cell.seed) in found or self._is_stopped(cell, step)
            for cell in self.pack.cells
        )

    def _stream_beside_training(self) -> torch.cuda.Stream | None:
        """On a GPU a queue of its own, behind what is queued now: the agent's copy.

        In the queue of the updates every action would wait for all updates that are ahead of it.
        """
        if self.device.type != "cuda":
            return None
        stream = torch.cuda.Stream(self.device, priority=-1)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self.device))
        return stream

    def _beside(
        self, stream: torch.cuda.Stream | None, agent: Agent, step: int, threads: int
    ) -> tuple[Evaluation | None, float]:
        """The episodes, played in another thread."""
        torch.set_num_threads(threads)  # a new thread would round with its own number
        with torch.cuda.stream(stream):  # None is no stream
            return self._play(agent, step)

    def _play(self, agent: Agent, step: int) -> tuple[Evaluation | None, float]:
        """The episodes of an evaluation and the seconds they took."""
        started = time.perf_counter()
        if self.evaluator is not None:
            found = self.evaluator(agent, self.pack, step)
            return found, time.perf_counter() - started
        cells = self.pack.cells
        purpose = "online evaluation" if self.pack.online else "evaluation"
        seeds = [cell.stream(purpose, step) for cell in cells]
        policy = PackPolicy(
            self.pack, agent, self.problem, self.normalizer, RandomStreams(seeds, self.device)
        )

        def act(observations: ArrayTree, waiting: NDArray[np.bool_]) -> NDArray[Any]:
            actions = policy(observations, waiting)
            if self._closed:  # the pool would start simulators afresh, and the process not end
                raise CancelledError
            return actions

        result = evaluate(
            act,
            tasks=[cell.task_name for cell in cells],
            seeds=seeds,
            episodes=self.pack.protocol.episodes,
            pool=self.pool,
        )
        return result, time.perf_counter() - started

    @held_back()  # rows are written once and whole
    def _record(
        self,
        step: int,
        metrics: Mapping[str, list[float]],
        seconds: float,
        played: tuple[Evaluation | None, float],
    ) -> None:
        self._begun = None
        result, spent = played
        cells = self.pack.cells
        updates = self.pack.updates_at(step)
        shared = dict(self.shared) | {
            "seconds_training": seconds,
            "seconds_evaluation": spent,
            "updates_per_second": updates / seconds if updates and seconds > 0.0 else None,
        }
        rows = {
            index: shared
            | self._evaluation_row(index, cell, step, self._of(index, metrics), result)
            for index, cell in enumerate(cells)
            if not self._is_stopped(cell, step)
        }
        self._evaluations.append(list(rows.values()))
        for index, row in rows.items():
            if row.get("episodes"):
                values = {name: row[name] for name in ("return_mean", "length_mean")}
                values["success_rate"] = row["successes"] / row["episodes"]
                self._curves.log(index, "evaluation", step, values)
        event = {
            "event": "evaluated",
            "pack": self.pack.name,
            "phase": self.pack.phase,
            "step": step,
            "successes": [rows.get(index, {}).get("successes") for index in range(len(cells))],
            "updates_per_second": shared["updates_per_second"],
            "seconds_evaluation": spent,
        }
        _log.info("%s evaluated at step %d", self.pack.name, step, extra={"fields": event})

    def failed(self, failure: Failure) -> None:
        """A row that says where and why a run was stopped, the last of its phase."""
        _log.error("%s", failure)
        self._stopped[failure.cell] = failure.step
        row = dict(self.shared) | self._cell(failure.cell)
        row |= {"phase": self.pack.phase, "step": failure.step}
        row |= {"failed_at_step": failure.step, "failure": str(failure)}
        self._evaluations.append([row])
        self._curves.failed(self.pack.cells.index(failure.cell), failure.step, str(failure))

    def _is_stopped(self, cell: Cell, step: int) -> bool:
        return cell in self._stopped and step >= self._stopped[cell]

    def _evaluation_row(
        self,
        index: int,
        cell: Cell,
        step: int,
        metrics: Mapping[str, float],
        result: Evaluation | None,
    ) -> dict[str, Any]:
        row = self._cell(cell) | {"phase": self.pack.phase, "step": step}
        trust = {name: metrics.get(name) for name in ("path_kl", "kl_budget", "lambda")}
        if result is None:
            return row | trust
        if (failure := result.failures[index]) is not None:
            _log.error("%s: %s", cell, failure)
            return row | {"failed_at_step": step, "failure": str(failure)}
        source = self.pack.domain.source
        successes = source.successes(result.successes[index], result.returns[index])
        return (
            row
            | {
                "episodes": len(successes),
                "successes": int(successes.sum()),
                "return_mean": float(result.returns[index].mean()),
                "length_mean": float(result.lengths[index].mean()),
            }
            | trust
        )

    def _tracked(self, cell: Cell) -> TrackedCell:
        method = "--".join((cell.agent, *self.pack.variant))
        name = f"{cell.domain}/task{cell.task}/{method}/seed-{cell.seed}"
        settings = self._cell(cell) | {"settings": asdict(self.config)}
        return TrackedCell(name, settings)

    def _cell(self, cell: Cell) -> dict[str, Any]:
        return {
            "suite": self.pack.suite,
            "domain": cell.domain,
            "task": cell.task_name,
            "agent": cell.agent,
            "variant": ", ".join(self.pack.variant),
            "seed": cell.seed,
        }

    def _of(self, index: int, metrics: Mapping[str, list[float]]) -> dict[str, float]:
        replica = index // self.pack.cells_per_replica
        return {name: values[replica] for name, values in metrics.items()}
