"""`bench compare`: what differs between two runs, and whether it matters."""

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Compare"]


@dataclass(frozen=True)
class Compare:
    """Say which of two runs is better and whether the seeds support it, and what was set otherwise.

    Attributes:
        first: run directory A.
        second: run directory B.
        mix: average runs of different data, simulators or protocols within A and B all the same.
    """

    first: tyro.conf.Positional[Path]
    second: tyro.conf.Positional[Path]
    mix: bool = False

    def run(self) -> int:
        """Print the comparison; 1 if a cell of either run failed."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        from bench.results import compare_runs
        from bench.terminal import standard_output

        comparison = compare_runs(self.first, self.second, mix=self.mix)
        console = standard_output(highlight=False)
        console.print(f"{comparison.verdict}.", markup=False, style="bold")
        console.print(f"A: {self.first}\nB: {self.second}", markup=False, soft_wrap=True)
        results = Table(title="Success", title_justify="left", box=box.SIMPLE_HEAD)
        columns = ("methods", "tasks", "A %", "B %", "runs", "A - B", "95 %", "A beats B", "p")
        for column in columns:
            results.add_column(column, justify="left" if column == "methods" else "right")
        for method in comparison.methods:
            low, high = 100 * method.difference.low, 100 * method.difference.high
            results.add_row(
                Text(method.name),
                str(method.tasks),
                *(f"{100 * rate:.1f}" for rate in method.success),
                f"{method.runs[0]}, {method.runs[1]}",
                f"{100 * method.difference.value:+.1f}",
                Text("–" if method.one_seed else f"[{low:+.1f}, {high:+.1f}]"),
                f"{method.improvement:.2f}",
                "–" if method.one_seed else f"{method.p_corrected:.2g}",
            )
        console.print(results)
        for title, differences in (
            ("Settings that differ", comparison.settings),
            ("Environment", comparison.environment),
        ):
            if not differences:
                console.print(f"{title}: {'none' if 'differ' in title else 'the same'}")
                continue
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            for column in ("name", "A", "B"):
                table.add_column(column, overflow="fold")
            for name, values in differences.items():
                table.add_row(*map(Text, (name, *values)))
            console.print(table)
        for note in comparison.notes:
            console.print(f"note: {note}", markup=False, style="yellow")
        for line in comparison.failed:
            console.print(f"failed: {line}", markup=False, style="red")
        return 1 if comparison.failed else 0
