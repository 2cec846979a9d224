"""`bench report`: tables, figures and one HTML page from runs."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import tyro

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """Summarise runs: result tables, figures and a page that opens offline.

    Works while runs go on. Cells that have not reached their end are counted and left out.

    Attributes:
        runs: run directories, or folders that hold some.
        out: where to write; RUNS/report of the first by default.
        unfinished: also use cells that have not reached their end, at their last evaluation.
        mix: average runs of different data, simulators or protocols all the same.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None
    unfinished: bool = False
    mix: bool = False

    def run(self) -> int:
        """Write the report and print its tables; 1 if a cell failed."""
        if not self.runs:
            raise ValueError("give the runs to report, for example: bench report runs/quick")
        from rich.console import Console

        from bench.api.reading import report
        from bench.results import print_table

        done = report(self.runs, out=self.out, unfinished=self.unfinished, mix=self.mix)
        console = Console(soft_wrap=True)
        if done.cells["recorded_at"].drop_nulls().len():
            print_table(done.table)
        else:
            places = " ".join(quote(str(place)) for place in self.runs)
            console.print(
                f"nothing has been evaluated yet; `bench status {places}` shows the progress",
                highlight=False, markup=False,
            )  # fmt: skip
        console.print(f"page:   {done.page}", highlight=False, markup=False)
        others = sorted({path.suffix.lstrip(".") for path in done.files if path != done.page})
        console.print(f"beside: {len(done.files) - 1} files ({', '.join(others)})", highlight=False)
        return 1 if done.failures else 0
