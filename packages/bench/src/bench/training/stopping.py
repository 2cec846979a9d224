"""SIGTERM and SIGHUP end a run in good order: a checkpoint of the step that it has reached."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from bench.errors import StoppedError

__all__ = ["heeding_signals", "held_back", "let_through", "stop_if_asked"]

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

# Signals belong to the process, so what is known of them does too.
_asked: list[signal.Signals] = []
_held = 0


@contextlib.contextmanager
def heeding_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise a `StoppedError` inside, at once or where `held_back` says so.

    A signal that is ignored (`nohup`) stays so, and outside of the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _receive) for number in heeded}
    _asked.clear()
    # A process of ours begins with them blocked, see `bench.machine.start_process`.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, heeded)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Keep the first signal until `stop_if_asked`, `let_through` or the end; a second is not kept.

    Raises:
        StoppedError: at the end, where a signal came and nothing further out holds it back.
    """
    global _held
    before, _held = _held, 1
    try:
        yield
    finally:
        _held = before
    if not _held:
        stop_if_asked()


@contextlib.contextmanager
def let_through() -> Iterator[None]:
    """Inside `held_back`: a signal takes effect here, at once.

    Raises:
        StoppedError: a signal came.
    """
    global _held
    before, _held = _held, 0
    try:
        stop_if_asked()
        yield
    finally:
        _held = before


def stop_if_asked() -> None:
    """End here where a signal came.

    Raises:
        StoppedError: it did.
    """
    if _asked:
        raise StoppedError(_asked[0])


def _receive(number: int, frame: FrameType | None) -> None:
    del frame
    again = bool(_asked)
    _asked.append(signal.Signals(number))
    if not _held or again:
        raise StoppedError(_asked[0])
