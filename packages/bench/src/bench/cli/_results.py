"""Results as the command line prints them, and its exit codes."""

from shlex import quote
from typing import TYPE_CHECKING

from bench.api.results import RunResult
from bench.experiment import Phase
from bench.storage import read_run
from bench.terminal import standard_output

if TYPE_CHECKING:  # it draws, and importing what draws takes longer than a table
    from bench.api.ablations import AblationResult

__all__ = ["show_ablation", "show_run"]


def show_run(result: RunResult) -> int:
    """Print the table, where things are and what to run next; 1 where a run has not finished."""
    console = standard_output()
    result.show(console)
    directory = result.directory
    lines = [f"table: {directory / 'results.md'} (and .csv, .parquet beside it)"]
    if result.page is None:
        lines.append(f"curves: bench report {quote(str(directory))}")
    else:
        lines.append(f"figures: {result.page}")
    settings = read_run(directory).settings
    if settings["suite"] == "quick" and _is_plain(result) and result.complete:
        lines.append(
            "next: more seeds (--seeds 3), another agent (bench agents), "
            "the online phase (bench online --suite quick), or the paper's protocol: "
            "bench offline --suite ogbench50 --dry-run"
        )
    for line in lines:
        console.print(line, markup=False)
    return 0 if result.complete else 1


def show_ablation(result: "AblationResult") -> int:
    """Print the tables; 1 where a run has not finished."""
    if result.run is not None:
        result.run.show()
    result.show()
    return 0 if result.complete else 1


def _is_plain(result: RunResult) -> bool:
    cells = result.cells
    return Phase.ONLINE not in cells["phase"] and not (cells["variant"] != "").any()
