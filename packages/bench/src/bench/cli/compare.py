"""`bench compare`: what differs between two runs, and whether it matters."""

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Compare"]


@dataclass(frozen=True)
class Compare:
    """Show which settings of two runs differ, and whether their success does.

    Attributes:
        first: run directory A.
        second: run directory B.
        mix: average runs of different data, simulators or protocols within A and B all the same.
    """

    first: tyro.conf.Positional[Path]
    second: tyro.conf.Positional[Path]
    mix: bool = False

    def run(self) -> int:
        """Print the comparison."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        from bench.results import compare_runs

        comparison = compare_runs(self.first, self.second, mix=self.mix)
        console = Console(highlight=False)
        console.print(f"A: {self.first}\nB: {self.second}", markup=False)
        for title, differences in (
            ("Settings", comparison.settings),
            ("Environment", comparison.environment),
        ):
            if not differences:
                console.print(f"{title}: the same")
                continue
            table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
            for column in ("name", "A", "B"):
                table.add_column(column, overflow="fold")
            for name, values in differences.items():
                table.add_row(*map(Text, (name, *values)))
            console.print(table)
        for method in comparison.methods:
            one, other = (f"{100 * rate:.1f} %" for rate in method.success)
            ends = ""
            if not method.one_seed:
                low, high = 100 * method.difference.low, 100 * method.difference.high
                ends = f", difference [{low:+.1f}, {high:+.1f}]"
            console.print(
                f"{method.phase}, {method.tasks} tasks: A {method.first} {one} "
                f"({method.runs[0]} runs), B {method.second} {other} ({method.runs[1]} runs){ends}"
                f"; a run of A beats a run of B with probability {method.improvement:.2f}",
                markup=False,
            )
            console.print(f"  {method.verdict}", markup=False, style="bold")
        for note in comparison.notes:
            console.print(f"note: {note}", markup=False, style="yellow")
        return 0
