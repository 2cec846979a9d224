"""The `bench` command: one module per subcommand, which imports what is heavy when it runs."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator

from bench.errors import StoppedError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit status.

    0 is success, 1 a run that failed in part or as a whole, 2 bad input, 130 an interruption,
    128 and a signal's number the end by SIGTERM or SIGHUP.
    Whatever goes wrong is one line on standard error that says what to do; the traceback of what
    no one foresaw is in the run's log or in a file that the line names, and ``--debug`` (or
    BENCH_DEBUG=1) shows it.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given or os.environ.get("BENCH_DEBUG") == "1"
    given = [argument for argument in given if argument != "--debug"]
    # The one place that catches everything, polars' PanicException (a BaseException) and an
    # interruption while modules are imported included: nothing above could handle them.
    try:
        from bench.cli._commands import command_of
        from bench.training.stopping import heeding_signals

        with heeding_signals(), _warnings_in_a_line():
            status = command_of(given).run()
        sys.stdout.flush()
        return status
    except BaseException as error:
        if isinstance(error, SystemExit) and not isinstance(error, StoppedError):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        from bench.cli._failure import report

        return report(error, given, debug=debug)


@contextlib.contextmanager
def _warnings_in_a_line() -> Iterator[None]:
    """Show FutureWarnings, which are for users, without the file and line that raised them."""
    usual = warnings.formatwarning

    def in_a_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        line: str | None = None,
    ) -> str:  # fmt: skip
        if issubclass(category, FutureWarning):
            return f"warning: {message}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = in_a_line
    try:
        yield
    finally:
        warnings.formatwarning = usual
