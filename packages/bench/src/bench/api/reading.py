"""Reading runs: results, comparisons, how far they are. Needs no torch."""

from collections.abc import Sequence
from pathlib import Path

from bench.api.results import ComparisonResult, RunResult, StatusResult
from bench.results import compare_runs, run_progress

__all__ = ["compare", "report", "status"]


def report(
    runs: str | Path | Sequence[str | Path],
    *,
    out: str | Path | None = None,
    unfinished: bool = False,
    mix: bool = False,
) -> RunResult:
    """Result tables of runs, with figures and an HTML page that opens offline.

    Works while runs go on. Cells that have not reached their end are counted and left out.

    Args:
        runs: run directories, or folders that hold some.
        out: where to write; `report` in the first of them by default.
        unfinished: also use cells that have not reached their end, at their last evaluation.
        mix: average runs of different data, simulators or protocols all the same.

    Raises:
        ResultsError: there is nothing to report, or a table cannot be read.
        MixedOriginError: runs that measure different things would be averaged.
    """
    from bench.results.report import write_report

    places = _paths(runs)
    first = places[0] if places[0].is_dir() else places[0].parent
    directory = first / "report" if out is None else Path(out)
    written = write_report(places, directory, unfinished=unfinished, mix=mix)
    return RunResult(places, written.table, written.page, tuple(written.files))


def compare(first: str | Path, second: str | Path, *, mix: bool = False) -> ComparisonResult:
    """Which of two runs is better, whether the seeds support it, and what was set otherwise.

    Args:
        first: run directory A.
        second: run directory B.
        mix: average runs of different data, simulators or protocols within A and B all the same.

    Raises:
        ResultsError: there is nothing to compare, or a table cannot be read.
        MixedOriginError: runs that measure different things would be averaged.
    """
    one, other = Path(first), Path(second)
    return ComparisonResult(one, other, compare_runs(one, other, mix=mix))


def status(runs: str | Path | Sequence[str | Path] = "runs") -> StatusResult:
    """Cells done, running and failed, the rate and the remaining time of runs.

    Args:
        runs: run directories, or folders that hold some.

    Raises:
        ResultsError: there are none.
    """
    return StatusResult(run_progress(_paths(runs)))


def _paths(places: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    if isinstance(places, str | Path):
        return (Path(places),)
    if not places:
        raise ValueError("give at least one run directory")
    return tuple(map(Path, places))
