"""Packs trained in several processes at once: one core's thread or one GPU each."""

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from bench.errors import BenchError, RunLockedError, StoppedError, logged_in
from bench.failures import in_words, is_foreseen
from bench.machine import available_cores, ending, start_process
from bench.storage import RunLock, log_to
from bench.training.cells import Pack
from bench.training.console import Display
from bench.training.left_out import LeftOut, PackFailedError
from bench.training.options import Plan
from bench.training.stopping import heeding_signals

__all__ = ["PackTraining", "train_in_processes"]

_log = logging.getLogger(__name__)

_TICK_SECONDS = 0.5
_LEFTOVER_SECONDS = 10.0
_SAVING_SECONDS = 20.0

# Trains one pack: (pack, display) -> problems. Built once in every process, from the plan and the
# number of processes that simulate for it (0: the process itself).
PackTraining = Callable[[Pack, Display], list[str]]
Builder = Callable[[Plan, int], contextlib.AbstractContextManager[PackTraining]]


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    line: Connection
    pack: Pack | None = None
    domain: str = ""
    stage: ExitStack = field(default_factory=ExitStack)
    tell: Callable[[int], None] = lambda done: None


def train_in_processes(plan: Plan, build: Builder, display: Display) -> list[str]:
    """Train every pack of a plan, as many at a time as the plan has processes.

    A pack begins when those that it starts from are finished. Numbers do not depend on the number
    of processes, only on the packs.

    Args:
        plan: what to train.
        build: importable by its name; called in every process.
        display: shows the stages of all.

    Returns:
        What went wrong in runs that were stopped or left out; the others are finished.

    Raises:
        BenchError: from a process, or because one died; rerun the command to resume.
        ValueError: from a process.
    """
    waiting, finished, problems = list(plan.in_order), set[str](), list[str]()
    left_out = LeftOut(plan)
    context = get_context("spawn")
    with ExitStack() as stack:
        workers: list[_Worker] = []
        stack.push(partial(_end_all, workers))
        for index in range(min(plan.processes, len(waiting))):
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_work, args=(_on_device(plan, index), build, theirs, os.getpid())
            )
            start_process(process)
            theirs.close()
            workers.append(_Worker(process, mine))
        while waiting or any(worker.pack for worker in workers):
            for worker in workers:
                if worker.pack is None and (pack := _next(plan, waiting, finished, worker.domain)):
                    waiting.remove(pack)
                    worker.pack, worker.domain = pack, pack.domain.name
                    worker.line.send(pack.name)
            busy = {worker.line: worker for worker in workers if worker.pack}
            for line in connection.wait(list(busy)):
                worker = busy[line]  # type: ignore[index]
                problems += _receive(worker, finished, left_out, display)
            waiting = [pack for pack in waiting if not left_out.reject(pack)]
    return problems + left_out.problems


def _next(plan: Plan, waiting: Sequence[Pack], finished: set[str], domain: str) -> Pack | None:
    """The first pack that can begin, one of the domain whose data are there if possible."""
    ready = [pack for pack in waiting if plan.required(pack) <= finished]
    return min(ready, key=lambda pack: pack.domain.name != domain, default=None)


def _receive(worker: _Worker, finished: set[str], left_out: LeftOut, display: Display) -> list[str]:
    """Take one message of a worker; returns problems that it reports."""
    assert worker.pack is not None
    try:
        kind, content = worker.line.recv()
    except EOFError:
        worker.process.join()
        raise BenchError(
            f"the worker training {worker.pack.name} died ({ending(worker.process.exitcode)}); "
            "rerun the command to resume; --processes 1 needs the least memory"
        ) from None
    match kind:
        case "stage":
            worker.tell = worker.stage.enter_context(display.stage(*content))
        case "done":
            worker.tell(content)
        case "end":
            worker.stage.close()
        case "finished":
            finished.add(worker.pack.name)
            worker.pack = None
            return list(content)
        case "left out":
            left_out.add(worker.pack, content)
            worker.stage.close()
            worker.pack = None
        case "failed":
            kind_of_error, text = content
            raise kind_of_error(text)
    return []


def _end_all(
    workers: Sequence[_Worker],
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    """End the processes: at once where something went wrong, after saving where a signal came."""
    del kind, trace
    deadline = time.monotonic() + _SAVING_SECONDS
    for worker in workers:
        worker.stage.close()
        if isinstance(error, StoppedError):
            worker.process.terminate()
        elif error is not None:
            worker.process.kill()  # as safe as any other kill: the next run takes its checkpoint
        else:
            worker.line.close()
    for worker in workers:
        if error is not None:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
        worker.process.join()
        worker.line.close()


def _on_device(plan: Plan, index: int) -> Plan:
    """The plan for one process: GPUs are dealt out in turn."""
    if plan.device.type != "cuda" or plan.device.index is not None:
        return plan
    return replace(plan, device=torch.device("cuda", index % torch.cuda.device_count()))


def _work(plan: Plan, build: Builder, line: Connection, parent: int) -> None:
    """Main function of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent acts on Ctrl-C
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    _serve(plan, build, line)


def _serve(plan: Plan, build: Builder, line: Connection) -> None:
    """Train what the parent names; whatever ends that is told in words.

    The boundary of a process, as `bench.cli.main` is that of a command: it catches everything, as
    nothing above could handle it, and not every exception survives the way through a pipe.
    """
    try:
        with heeding_signals():
            _train(plan, build, line)
    except StoppedError:
        return
    except SystemExit:
        raise
    except BaseException as error:
        text = in_words(error)
        if not is_foreseen(error):
            text += f" (traceback: {_logged(error, plan.directory / 'log.jsonl')})"
        _tell(line, "failed", (ValueError if isinstance(error, ValueError) else BenchError, text))


def _logged(error: BaseException, log: Path) -> Path:
    """The log that holds a traceback, put there if need be."""
    if (found := logged_in(error)) is not None:
        return found
    with log_to(log):
        _log.info("%s", in_words(error), exc_info=error)
    return log


def _train(plan: Plan, build: Builder, line: Connection) -> None:
    """Train the packs that the parent names, until it closes the line."""
    cores = max(1, available_cores() // plan.processes)
    torch.set_num_threads(cores)
    packs = {pack.name: pack for pack in plan.in_order}
    display = _Messages(line)
    with build(plan, 0 if cores == 1 else cores) as train:
        while True:
            try:
                name = line.recv()
            except EOFError:
                return
            try:
                with _held(plan, packs[name]):
                    problems = train(packs[name], display)
            except PackFailedError as error:
                _tell(line, "left out", str(error))
            else:
                _tell(line, "finished", problems)


def _tell(line: Connection, kind: str, content: Any) -> None:
    """Send a message to the parent; a process that nobody hears any more ends."""
    try:
        line.send((kind, content))
    except OSError:
        raise SystemExit(1) from None


def _die_with(parent: int) -> None:
    """A process whose parent was killed must not write beside its successor."""
    while os.getppid() == parent:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def _held(plan: Plan, pack: Pack) -> Iterator[None]:
    """The lock of a pack's folder, once a process that outlived its parent has left it."""
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    lock = RunLock(plan.directory / "packs" / pack.name)
    while True:
        try:
            lock.acquire()
            break
        except RunLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.release()


class _Messages:
    """Stages told to the parent, seldom enough not to slow the work."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
        """A stage of ``total`` units; yields the function that is told how many are done."""
        self._send("stage", (name, total, unit))
        said = 0.0

        def tell(done: int) -> None:
            nonlocal said
            now = time.monotonic()
            if said == 0.0 or done >= total or now - said >= _TICK_SECONDS:
                said = now
                self._send("done", done)

        yield tell
        self._send("end", None)

    def _send(self, kind: str, content: Any) -> None:
        _tell(self._line, kind, content)
