"""Any exception in words, and whether somebody foresaw it."""

import sys
import traceback
from pathlib import Path

from bench.errors import BenchError

__all__ = ["in_words", "is_foreseen", "is_interruption"]

_PACKAGES = ("bench", "qlearn", "adjoint", "flowsde", "trustregion")


def in_words(error: BaseException) -> str:
    """What went wrong, on one line, with what to do about it where that is known."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}"
    if isinstance(error, ValueError | BenchError | OSError):
        return text or f"{type(error).__name__} in {_place(error)}"
    if _is_lack_of_memory(error):
        detail = f" ({text})" if text else ""
        return (
            f"there is not enough memory{detail}; ask for less at a time (smaller networks, "
            "--pack 1, --processes 1, --data-memory 0) or use a larger machine"
        )
    if isinstance(error, RecursionError):
        return f"something is nested too deeply to be read, in {_place(error)}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {error.name!r}, needed by {_place(error)}; install it"
    if isinstance(error, ImportError):
        return f"a module cannot be imported: {text}"
    if type(error).__name__ == "PanicException":
        return f"polars gave up on a table: {text}; it may be damaged"
    if isinstance(error, NotImplementedError) and not text:
        text = "this is not implemented"
    return f"unexpected {type(error).__name__} in {_place(error)}: {text or 'no further words'}"


def is_foreseen(error: BaseException) -> bool:
    """Whether a text of ours says what to do: other traces are kept for those who look into it."""
    if isinstance(error, BenchError | OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return isinstance(error, ValueError) and bool(frames) and _is_ours(frames[-1].filename)


def is_interruption(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it; some libraries turn that into an ImportError."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, KeyboardInterrupt):
            return True
        found = found.__cause__ or found.__context__
    return False


def _is_lack_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("can't allocate" in text or "out of memory" in text)
    )


def _is_ours(file: str) -> bool:
    modules = filter(None, map(sys.modules.get, _PACKAGES))
    return any(Path(file).is_relative_to(folder) for m in modules for folder in m.__path__)


def _place(error: BaseException) -> str:
    """File and line of the last frame, and those of ours that led there."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}"
