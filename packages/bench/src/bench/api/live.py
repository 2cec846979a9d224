"""Fine-tuning in a loop of the user's own: act, observe, learn between the steps."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from bench.api.evaluating import UserEvaluation
from bench.errors import BenchError
from bench.policies import observed_rows
from bench.simulation import LARGEST_NUMBER, SimulatorPool
from bench.storage import RunLock, log_to
from bench.suites import OnlineProtocol
from bench.training.assembly import build_agent, build_recorder, build_sampler
from bench.training.cells import Pack
from bench.training.console import Stages
from bench.training.domain_data import PreparedDomain
from bench.training.live import LiveExperience
from bench.training.online import replay
from bench.training.policy import ActionScale
from bench.training.run_plan import Plan
from bench.training.run_record import record_plan
from bench.training.trainer import Trainer
from qlearn import RandomStreams, RingBuffer

__all__ = ["LiveTuner", "live_plan"]


def live_plan(
    plan: Plan, online: OnlineProtocol, *, log_every: int, checkpoint_every: int
) -> tuple[Plan, Pack]:
    """A plan with a live phase behind its one offline run, and the pack of that phase."""
    (offline,) = plan.packs
    protocol = replace(
        offline.protocol, online=online, log_every=log_every, checkpoint_every=checkpoint_every
    )
    pack = replace(offline, protocol=protocol, online=True)
    suite = replace(plan.suite, protocol=replace(plan.suite.protocol, online=online))
    configs = {**plan.configs, pack.name: plan.configs[offline.name]}
    return replace(plan, suite=suite, online=(pack,), configs=configs), pack


class LiveTuner:
    """A fine-tuned policy that goes on learning from what it lives through.

        with tuner.online(steps=20_000) as live:
            while not live.finished:
                observation = robot.reset()
                ended = False
                while not ended and not live.finished:
                    action = live.act(observation)
                    observation, reward, terminated, truncated = robot.step(action)
                    live.observe(observation, reward, terminated, truncated)
                    ended = terminated or truncated

    Updates are made by :meth:`observe`. Checkpoints are made at the ends of episodes, and at the
    end of the `with` statement: a process that is killed continues from the last one with the same
    numbers, as far as the loop does the same again. An episode that was cut off counts as
    truncated.

    Args:
        plan: of :func:`live_plan`.
        pack: of :func:`live_plan`.
        closed: called at the end.
    """

    def __init__(self, plan: Plan, pack: Pack, closed: Callable[[], None]) -> None:
        self._plan, self._pack, self._closed = plan, pack, closed
        with ExitStack() as stack:
            self._trainer = self._begin(stack)
            self._stack = stack.pop_all()
        self._open, self._broken_off = True, False

    def _begin(self, stack: ExitStack) -> Trainer:
        plan, pack = self._plan, self._pack
        command = ["bench.FineTuner.online"]
        stack.enter_context(RunLock(plan.directory, command))
        stack.enter_context(log_to(plan.directory / "log.jsonl"))
        record_plan(plan, command)
        stages = stack.enter_context(Stages(Console(quiet=True)))
        prepared = PreparedDomain.of(plan, pack.domain, stages)
        problem, config = prepared.problem, plan.configs[pack.name]
        streams = RandomStreams(pack.replica_seeds, plan.device)
        agent, unfit = build_agent(plan, pack, prepared, streams)
        if unfit:
            raise BenchError(f"nothing to go on from: {unfit[0]}")
        ring = RingBuffer(
            1,
            pack.protocol.online.steps,
            problem.spec,
            problem.action_dim,
            horizon=problem.horizon,
            discount=config.discount,
            mode=pack.protocol.chunks,
            device=streams.device,
        )
        scale = ActionScale.of(pack.domain)
        self._experience = LiveExperience(ring, streams.spawn("acting"), problem, scale)
        self._normalizer, self._spec = prepared.tables.normalizer, problem.observation
        recorder = build_recorder(
            plan, pack, prepared, agent, SimulatorPool(0), UserEvaluation(plan.directory, None)
        )
        stack.callback(recorder.close)
        data = build_sampler(plan, pack, prepared, agent, 1)
        trainer = Trainer(
            pack,
            agent,
            streams,
            replay(pack, data, ring),
            recorder.directory,
            recorder,
            plan.precision,
            experience=self._experience,
        )
        trainer.begin()
        return trainer

    @property
    def steps(self) -> int:
        """Steps observed since the phase began, those before an interruption included."""
        return self._trainer.step

    @property
    def episodes(self) -> int:
        """Episodes ended since the phase began."""
        return self._experience.episodes

    @property
    def finished(self) -> bool:
        """Whether the phase is over: all its steps are made."""
        return self._trainer.step >= self._pack.steps

    @property
    def metrics(self) -> dict[str, float]:
        """The latest averages of the training metrics."""
        return {name: values[0] for name, values in self._trainer.latest.items()}

    def act(self, observation: Any) -> NDArray[np.float32]:
        """The next action ``(A,)``; a chunk is played to its end before the policy is asked again.

        Args:
            observation: an array, or arrays by name, as the data have them.

        Raises:
            ValueError: another observation than the data's, or `act` twice in turn.
            BenchError: the phase is over.
        """
        if self.finished:
            raise BenchError(
                f"the phase of {self._pack.steps:,} steps is over; online(steps=...) with more "
                "goes on"
            )
        return self._experience.act(self._trainer.agent, self._row(observation))

    def observe(
        self, observation: Any, reward: float, terminated: bool, truncated: bool = False
    ) -> None:
        """What came of the last action; the updates that are due are made here.

        Args:
            observation: after the action.
            reward: for it.
            terminated: the task ended, by success or failure: no value follows.
            truncated: the episode was cut short, by a time limit or by hand.

        Raises:
            ValueError: no action waits for it, another observation, or a reward that is not finite.
            BenchError: the run was stopped, by a gradient that was not finite.
        """
        ended = bool(terminated or truncated)
        self._experience.observe(
            self._row(observation),
            reward,
            terminated=bool(terminated),
            truncated=bool(truncated),
        )
        self._broken_off = True
        self._trainer.turn(may_save=ended)
        self._broken_off = False
        if self._trainer.failures:
            raise BenchError(str(self._trainer.failures[0]))

    def close(self) -> None:
        """Save and give the run directory back; without effect the second time.

        A step that was broken off in the middle of its updates (Ctrl-C, an error) is not saved: the
        run goes on from the checkpoint before.
        """
        if not self._open:
            return
        self._open = False
        with self._stack:
            if not self._trainer.failures and not self._broken_off:
                self._trainer.save()
        self._closed()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _row(self, observation: Any) -> Any:
        """Leaves ``(1, *leaf)`` as the networks read them."""
        if self._spec is not None:
            rows, single = observed_rows(observation, self._spec, torch.device("cpu"))
        else:
            size = self._normalizer.shift.size
            flat = np.asarray(observation, np.float32)
            if flat.shape != (size,) or not (np.abs(flat) <= LARGEST_NUMBER).all():
                raise ValueError(
                    f"expected one observation of {size} finite numbers of at most "
                    f"{LARGEST_NUMBER:g}, got shape {flat.shape}"
                )
            return torch.from_numpy(self._normalizer(flat[None]))
        if not single:
            raise ValueError("expected one observation, got a batch")
        return rows
