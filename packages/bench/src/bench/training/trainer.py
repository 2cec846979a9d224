"""The training loop of one pack: step, log, evaluate, save, and continue where it stopped."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from bench.agents import Agent, Measuring, draw
from bench.errors import CheckpointError, StoppedError
from bench.storage import Checkpoint, checkpoint_steps, load_checkpoint, part, save_checkpoint
from bench.training.augmentation import shifted, update_noise
from bench.training.capture import CapturedUpdates
from bench.training.cells import Cell, Pack
from bench.training.precision import autocast
from bench.training.stopping import held_back, let_through, stop_if_asked
from qlearn import ChunkSource, RandomStreams

__all__ = [
    "BegunEvaluation",
    "Experience",
    "Failure",
    "Recorder",
    "Trainer",
    "agent_state",
    "load_agent",
    "stopped_replicas",
    "trained_replica",
]

_KEEP = 2


@dataclass(frozen=True, slots=True)
class Failure:
    """A run that was stopped: by a number that is not finite, or by its environment.

    Attributes:
        cell: the run.
        step: where it happened; nothing of that step was applied.
        reason: what happened.
        kept: checkpoint from before, kept for inspection; None if there was none.
    """

    cell: Cell
    step: int
    reason: str
    kept: str | None

    def __str__(self) -> str:
        kept = f"its last good checkpoint is {self.kept}" if self.kept else "it had no checkpoint"
        return f"{self.cell}: {self.reason} at step {self.step}; the run was stopped, {kept}"


@dataclass(frozen=True, slots=True)
class BegunEvaluation:
    """An evaluation whose episodes are still played.

    Attributes:
        step: where it was begun.
        agent: as it was there.
        metrics: the latest training metrics of that step.
        seconds: of training until then.
    """

    step: int
    agent: Agent
    metrics: Mapping[str, list[float]]
    seconds: float


class Recorder(Protocol):
    """Where a trainer's results go."""

    def restart(self, step: int, failures: Sequence[Failure] = ()) -> None:
        """Forget rows after ``step``; training continues from there, without what had failed."""

    def forget(self, step: int, *, training: bool, evaluation: bool) -> None:
        """Drop what was recorded at ``step`` because it was the last; of failed runs it stays."""

    def training(self, step: int, metrics: Mapping[str, list[float]]) -> None:
        """One value per replica and metric, averaged since the last call."""

    def evaluate(self, step: int, metrics: Mapping[str, list[float]], seconds: float) -> None:
        """Evaluate every cell and record it, at the latest in :meth:`wait`.

        ``metrics`` are the latest training metrics.
        """

    def wait(self, before: int | None = None) -> None:
        """Return when every evaluation that was begun (before a step) is recorded."""

    def still_played(self, before: int) -> "BegunEvaluation | None":
        """The evaluation that was begun before a step, unless it has ended."""

    def has_evaluated(self, step: int) -> bool:
        """Whether the evaluation of a step is recorded."""

    def failed(self, failure: Failure) -> None:
        """A run was stopped: nothing more of it is recorded from that step on."""


class Experience(Protocol):
    """What the online phase adds to training: environments that the agent acts in."""

    def step(self, agent: Agent) -> None:
        """One step of every replica's environment."""

    def metrics(self) -> dict[str, list[float]]:
        """One value per replica and metric."""

    def failures(self) -> Mapping[int, tuple[int, str]]:
        """Replicas that have stopped, with step and reason."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides later steps."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue where :meth:`state_dict` was taken."""


def _named(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of several parts, as a checkpoint names them."""
    return {f"{part}.{name}": v for part, state in parts.items() for name, v in state.items()}


def agent_state(agent: Agent) -> dict[str, Tensor]:
    """What a checkpoint holds of an agent and its optimiser; :func:`load_agent` is the way back."""
    return _named(agent=agent.state_dict(), learner=agent.learner.state_dict())


def load_agent(agent: Agent, tensors: Mapping[str, Tensor], prefix: str = "agent.") -> None:
    """Fill an agent and its optimiser from a checkpoint of a pack.

    Args:
        agent: built with the settings of the pack.
        tensors: of the checkpoint.
        prefix: of the agent's parameters there.

    Raises:
        CheckpointError: the checkpoint is of an agent with other tensors.
    """
    try:
        agent.load_state_dict(part(tensors, prefix))
        agent.learner.load_state_dict(part(tensors, "learner."))
    except RuntimeError as error:
        raise CheckpointError(
            f"a checkpoint does not match the agent that its settings describe: {error}; it may "
            "come from another version; if so, start again in another directory (--out)"
        ) from error


def stopped_replicas(checkpoint: Checkpoint) -> dict[int, str]:
    """Replicas of a pack's checkpoint whose parameters are lost, with what happened.

    Args:
        checkpoint: as :meth:`Trainer.save` wrote it.
    """
    metadata = checkpoint.metadata
    shared = len(metadata["cells"]) // len(checkpoint.tensors["streams.generators"])
    return {
        failure["cell"] // shared: f"{failure['reason']} at step {failure['step']}"
        for failure in metadata["failures"]
    }


def trained_replica(checkpoint: Checkpoint, cell: Cell) -> int:
    """Row of a pack's parameters that was trained for a run.

    Args:
        checkpoint: as :meth:`Trainer.save` wrote it.
        cell: the run.

    Raises:
        CheckpointError: the pack has no such run, or it was stopped: what a checkpoint has of it
            since is no policy.
    """
    metadata = checkpoint.metadata
    cells: list[str] = metadata["cells"]
    if str(cell) not in cells:
        raise CheckpointError(f"{checkpoint.path} has no run '{cell}', it has {', '.join(cells)}")
    shared = len(cells) // len(checkpoint.tensors["streams.generators"])
    replica = cells.index(str(cell)) // shared
    for failure in metadata["failures"]:
        if failure["cell"] // shared == replica:
            kept = f"its last good checkpoint is {failure['kept']}" if failure["kept"] else ""
            raise CheckpointError(
                f"{cell} was stopped at step {failure['step']} ({failure['reason']}) and has no "
                "trained policy" + (f"; {kept}" if kept else "")
            )
    return replica


@dataclass(slots=True)
class Trainer:
    """Trains one pack; everything that decides later numbers is in its checkpoints.

    Attributes:
        pack: what to train.
        agent: built with ``streams``.
        streams: one random stream per replica, for parameters, batches and noise.
        sampler: chunks of the data set, in the online phase also of the experience.
        directory: the pack's folder; checkpoints go to ``directory / "checkpoints"``.
        recorder: takes metrics and evaluates.
        precision: see :mod:`bench.training.precision`.
        captured: whether an update is one CUDA graph.
        experience: the environments of the online phase.
        unfit: replicas that cannot begin, as what they start from was stopped, with the reason.
        tick: called after every step with the number of steps done.
    """

    pack: Pack
    agent: Agent
    streams: RandomStreams
    sampler: ChunkSource
    directory: Path
    recorder: Recorder
    precision: str = "float32"
    captured: bool = False
    experience: Experience | None = None
    unfit: Mapping[int, str] = field(default_factory=dict)
    tick: Callable[[int], None] = lambda step: None
    step: int = field(default=0, init=False)
    seconds: float = field(default=0.0, init=False)
    failures: list[Failure] = field(default_factory=list, init=False)
    latest: dict[str, list[float]] = field(default_factory=dict, init=False)
    _window: dict[str, Tensor] = field(default_factory=dict, init=False)
    _windowed: int = field(default=0, init=False)
    _carried: dict[str, list[float]] | None = field(default=None, init=False)
    _unsaved: bool = field(default=False, init=False)
    _captured: CapturedUpdates[None] | None = field(default=None, init=False)

    @property
    def checkpoints(self) -> Path:
        """Where the pack's checkpoints are."""
        return self.directory / "checkpoints"

    def run(self) -> None:
        """Train from the last checkpoint to the end of the pack's protocol."""
        self.begin()
        with held_back(), self._saved_if_stopped():
            while self.step < self.pack.steps and len(self.failed_replicas) < self.streams.replicas:
                stop_if_asked()
                self.turn()
        self._captured = None  # it holds the trainer, and a graph's memory
        self.recorder.wait()

    def begin(self) -> None:
        """Restore the last checkpoint, or save the first."""
        self.restore()
        if self.step == 0 and not self.pack.clones:
            self.save()
        self.tick(self.step)

    def turn(self, *, may_save: bool = True) -> None:
        """One step, and the log, evaluation and checkpoint that are due after it.

        Args:
            may_save: whether a checkpoint can be made here; one that is due is made later else.
        """
        protocol = self.pack.protocol
        self.advance()
        last = self.step == self.pack.steps
        due = self.step % protocol.log_every == 0
        if last or due:
            self.log(keep=not due)
        if self._evaluates(self.step):
            self.check()  # lost parameters are not evaluated
            with let_through():
                self.recorder.evaluate(self.step, self.latest, self.seconds)
        self._unsaved |= last or self.step % protocol.checkpoint_every == 0
        if self._unsaved and may_save:
            self.check()
            with let_through():  # an earlier evaluation may take minutes
                self.recorder.wait(before=self.step)
            self.save()
            self._unsaved = False
        self.tick(self.step)

    @contextlib.contextmanager
    def _saved_if_stopped(self) -> Iterator[None]:
        """Save the step that was reached where a signal ends the run."""
        try:
            yield
        except StoppedError:
            # An evaluation that is still played may take minutes; the next run plays it again.
            self.save(unplayed=self.recorder.still_played(before=self.step))
            raise

    def _evaluates(self, step: int) -> bool:
        """Whether a step ends with an evaluation; cloned flows are evaluated once."""
        if step == self.pack.steps:
            return True
        often = not self.pack.clones and step > 0
        return often and step % self.pack.protocol.evaluate_every == 0

    def finish(self) -> None:
        """Take the agent as trained to the end: evaluate and save it."""
        self.step = self.pack.steps
        self.recorder.restart(0)
        self.recorder.evaluate(self.step, self.latest, self.seconds)
        self.save()
        self.recorder.wait()
        self.tick(self.step)

    def advance(self) -> None:
        """One step of every replica: an update, or an environment step and its updates."""
        if self.experience is not None:
            with self._timed():
                self.experience.step(self.agent)
        due = self.pack.updates_at(self.step + 1) - self.pack.updates_at(self.step)
        for _ in range(due):
            self._update()
        self.step += 1

    def _update(self) -> None:
        if self.captured and self._captured is None:
            # Not before: a graph keeps the addresses of what was restored.
            self._captured = CapturedUpdates(self._learn, self.streams)
        with self._timed():
            (self._captured or self._learn)()
        self._windowed += 1

    def _learn(self) -> None:
        """Sample, update, and add the metrics to the window; nothing here waits for the device."""
        protocol = self.pack.protocol
        batch = self.sampler.sample(self.streams, protocol.batch_size)
        noise = draw(self.streams, update_noise(self.agent, protocol))
        batch = shifted(batch, noise, protocol)
        with autocast(self.precision, self.streams.device):
            metrics = self.agent.update(batch, noise)
        for name, value in metrics.items():
            if name in self._window:
                self._window[name] += value
            else:
                self._window[name] = value.to(torch.float32, copy=True)

    def log(self, *, keep: bool = False) -> None:
        """Hand the window's averages to the recorder and look for runs that failed.

        Args:
            keep: go on with the window and its metrics all the same, should the run be made longer.
        """
        self._carried = self.latest if keep else None
        with self._timed():  # waits for the device, so the clock sees what was queued
            self.latest = {
                name: (total / self._windowed).tolist()
                for name, total in self._window.items()
                if self._windowed
            }
        if self.experience is not None:
            self.latest |= self.experience.metrics()
        self.latest |= self._measured()
        if not keep:
            for total in self._window.values():
                total.zero_()
            self._windowed = 0
        self.check()
        self.recorder.training(self.step, self.latest)

    def _measured(self) -> dict[str, list[float]]:
        """What the agent measures of itself, on rows and noise of streams of their own."""
        agent = self.agent
        if not isinstance(agent, Measuring) or agent.measured_rows == 0:
            return {}
        streams = self.streams.spawn(f"measured at {self.step}")
        with self._timed():
            batch = self.sampler.sample(streams, agent.measured_rows)
            return {name: value.tolist() for name, value in agent.measure(batch, streams).items()}

    def check(self) -> None:
        """Stop the runs whose gradients were not finite or whose environments failed.

        The others go on.
        """
        for replica, reason in self.unfit.items():
            self._stop(replica, 0, reason)
        if self.experience is not None:
            for replica, (step, reason) in self.experience.failures().items():
                self._stop(replica, step, reason)
        learner, before = self.agent.learner, self.pack.updates_before
        for replica, update in enumerate(learner.failed_at.tolist()):
            if update < 0:
                continue
            tensor = learner.names[int(learner.guard.first_bad[replica])]
            reason = f"the gradient of {tensor} was not finite"
            if update > before:
                self._stop(replica, self.pack.step_of(update - before), reason)
            else:
                self._stop(replica, 0, f"its offline phase was stopped ({reason})")

    def _stop(self, replica: int, step: int, reason: str) -> None:
        """Stop all cells of a replica."""
        shared, stopped = self.pack.cells_per_replica, {failure.cell for failure in self.failures}
        cells = self.pack.cells[replica * shared : (replica + 1) * shared]
        if set(cells) <= stopped:
            return
        kept = self._keep_last_good(cells[0], step)
        for cell in cells:
            if cell not in stopped:
                self.failures.append(Failure(cell, step, reason, kept))
                self.recorder.failed(self.failures[-1])

    @property
    def failed_replicas(self) -> set[int]:
        """Replicas that were stopped."""
        failed = {failure.cell for failure in self.failures}
        per_replica = self.pack.cells_per_replica
        return {
            index // per_replica for index, cell in enumerate(self.pack.cells) if cell in failed
        }

    def save(self, unplayed: BegunEvaluation | None = None) -> None:
        """Write a checkpoint; runs that are not finite are stopped first.

        Earlier evaluations are recorded before; this step's may still be played, and is played
        again where the next run does not find it.

        Args:
            unplayed: an earlier evaluation that the next run plays instead of this one.
        """
        self.check()
        if unplayed is None:
            self.recorder.wait(before=self.step)
        before = {} if unplayed is None else unplayed.agent.state_dict()
        parts = {
            "streams": self.streams.state_dict(),
            "window": self._window,
            "experience": {} if self.experience is None else self.experience.state_dict(),
        }
        tensors = _named(unplayed=before) | agent_state(self.agent) | _named(**parts)
        metadata = {
            "pack": self.pack.name,
            "cells": [str(cell) for cell in self.pack.cells],
            "precision": self.precision,
            "seconds": self.seconds,
            "windowed": self._windowed,
            "window": list(self._window),
            "latest": self.latest,
            "carried": self._carried,
            "unplayed": None
            if unplayed is None
            else {
                "step": unplayed.step,
                "metrics": unplayed.metrics,
                "seconds": unplayed.seconds,
            },
            "failures": [
                {
                    "cell": self.pack.cells.index(failure.cell),
                    "step": failure.step,
                    "reason": failure.reason,
                    "kept": failure.kept,
                }
                for failure in self.failures
            ],
        }
        save_checkpoint(self.checkpoints, self.step, tensors, metadata, keep=_KEEP)

    def restore(self) -> None:
        """Continue from the newest good checkpoint, if there is one.

        Raises:
            CheckpointError: the checkpoint is of other runs or another precision.
        """
        checkpoint = load_checkpoint(self.checkpoints, device=str(self.streams.device))
        if checkpoint is None:
            self.recorder.restart(0)
            return
        found = checkpoint.metadata
        mine = {"cells": [str(cell) for cell in self.pack.cells], "precision": self.precision}
        for name, wanted in mine.items():
            if found[name] != wanted:
                raise CheckpointError(
                    f"{checkpoint.path} was made with {name} {found[name]}, this run has {wanted}; "
                    "use another --out"
                )
        self.step, self.seconds, self.latest = checkpoint.step, found["seconds"], found["latest"]
        self.failures = [
            Failure(self.pack.cells[f["cell"]], f["step"], f["reason"], f["kept"])
            for f in found["failures"]
        ]
        self.recorder.restart(self.step, self.failures)
        self._play_unplayed(checkpoint)
        load_agent(self.agent, checkpoint.tensors)
        self.streams.load_state_dict(part(checkpoint.tensors, "streams."))
        if self.experience is not None:
            self.experience.load_state_dict(part(checkpoint.tensors, "experience."))
        window = part(checkpoint.tensors, "window.")  # by name; rows keep the agent's order
        self._window = {name: window[name] for name in found.get("window", window)}
        self._windowed = found["windowed"]
        if self.step < self.pack.steps:
            self._forget_end(found.get("carried"))
        else:
            self._carried = found.get("carried")
        self.check()
        if self._evaluates(self.step) and not self.recorder.has_evaluated(self.step):
            self.recorder.evaluate(self.step, self.latest, self.seconds)

    def _play_unplayed(self, checkpoint: Checkpoint) -> None:
        """Play the episodes that a signal cut short, with the parameters of their step."""
        begun = checkpoint.metadata.get("unplayed")
        if begun is None or self.recorder.has_evaluated(begun["step"]):
            return
        load_agent(self.agent, checkpoint.tensors, prefix="unplayed.")
        self.recorder.evaluate(begun["step"], begun["metrics"], begun["seconds"])

    def _forget_end(self, carried: dict[str, list[float]] | None) -> None:
        """Go on beyond a step that may have been the end of a run that has been made longer.

        What was recorded there because it was the end is dropped, as if it had never been.
        """
        logged = self.step % self.pack.protocol.log_every == 0
        self.recorder.forget(
            self.step, training=not logged, evaluation=not self._evaluates(self.step)
        )
        if carried is not None:
            self.latest = carried

    def _keep_last_good(self, cell: Cell, failed_at: int) -> str | None:
        # The pack goes on and will prune this checkpoint; the stopped run's user needs it.
        steps = [step for step in checkpoint_steps(self.checkpoints) if step < failed_at]
        if not steps:
            return None
        source = self.checkpoints / f"step-{steps[-1]:09d}"
        target = self.directory / "stopped" / f"{cell.task_name}--seed-{cell.seed}" / source.name
        shutil.copytree(source, target, dirs_exist_ok=True)
        return str(target)

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - started
