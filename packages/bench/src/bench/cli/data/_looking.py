"""`bench data list`, `inspect` and `verify`: data that are on the disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cli.data._arguments import Name, Names, progress_bar

if TYPE_CHECKING:
    from bench.data import FileSummary

__all__ = ["Inspect", "List", "Verify"]


@dataclass(frozen=True)
class List:
    """List the datasets of the suites and your own, and what is on the disk of each.

    Attributes:
        data_dir: folder of the data files; OGBench's by default.
    """

    data_dir: Path | None = None

    def run(self) -> int:
        """Print the table; the exit status tells whether a file on the disk looks wrong."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        from bench.data import catalogue, default_data_dir, folder_option
        from bench.terminal import standard_output

        folder = self.data_dir or default_data_dir()
        entries = catalogue(folder)
        console = standard_output()
        # Narrow cells: 80 columns hold the table with its names, which are there to be copied.
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        longest = max(len(entry.dataset) for entry in entries)
        table.add_column("dataset", overflow="fold", no_wrap=2 * longest <= console.width)
        table.add_column("size", justify="right", no_wrap=True)
        table.add_column("can be had by", no_wrap=True)
        table.add_column("on disk", justify="right")
        table.add_column("source")
        for entry in entries:
            there = _amount(entry.bytes) if entry.bytes else ""
            if 0 < entry.present < entry.expected:
                there = f"{entry.present} of {entry.expected} files"
            table.add_row(
                entry.dataset,
                "" if entry.transitions is None else _count(entry.transitions),
                ", ".join(entry.ways).replace(" (needs expert)", "*"),
                "see below" if entry.problem else there,
                entry.source,
            )
        console.print(table)
        for entry in entries:
            if entry.problem:
                print(f"{entry.dataset}: {entry.problem}")
        where = folder_option(self.data_dir)
        if any("expert" in way for entry in entries for way in entry.ways):
            command = f"bench data expert ant{where}"
            print(f"* needs an expert: train it first, `{command}` (humanoid: for days)")
        print("size: training transitions; on disk: complete unless a number of files is given")
        print(f"folder: {folder}; `bench data verify{where}` reads what is there as a whole")
        return 1 if any(entry.problem for entry in entries) else 0


@dataclass(frozen=True)
class Inspect:
    """Show what a dataset holds: arrays, ranges, episode lengths, success by task, a picture.

    Attributes:
        name: a dataset, or the path of an npz file.
        data_dir: folder of the data files; OGBench's by default.
        validation: look at the validation files.
    """

    name: Name
    data_dir: Path | None = None
    validation: bool = False

    def run(self) -> int:
        """Print a summary of each file."""
        from bench.data import ensure_record, locate, summarise

        place = locate(self.name, self.data_dir, validation=self.validation)
        record = ensure_record(place)
        for path in place.files:
            entry = record.files[path.name]
            print(f"{path}\n  {entry.bytes / 1e6:,.1f} MB, {record.source}, {entry.fingerprint}")
            _print_summary(summarise(path, place.name))
        return 0


@dataclass(frozen=True)
class Verify:
    """Read datasets as a whole, check every array, compare with what is recorded of them.

    Attributes:
        names: datasets or npz files; all that are on the disk by default.
        data_dir: folder of the data files; OGBench's by default.
    """

    names: Names = ()
    data_dir: Path | None = None

    def run(self) -> int:
        """Print what is wrong; exit status 1 if anything is."""
        from bench.data import DataMissing, catalogue, default_data_dir, verify

        folder = self.data_dir or default_data_dir()
        if not folder.exists():
            raise DataMissing(
                f"folder {folder} does not exist; set --data-dir to the folder of the data"
            )
        names = self.names or tuple(e.dataset for e in catalogue(folder) if e.present == e.expected)
        if not names:
            print(f"no complete dataset in {folder}")
        wrong = 0
        for name in names:
            with progress_bar(name, "bytes") as meter:
                problems = verify(name, folder, meter)
            print("\n".join(problems) if problems else f"{name}: intact")
            wrong += len(problems)
        return 1 if wrong else 0


def _print_summary(summary: "FileSummary") -> None:
    from rich.table import Table

    from bench.terminal import standard_output

    shortest, median, longest = summary.lengths
    print(
        f"  {summary.episodes:,} episodes of {shortest:,} to {longest:,} (median {median:,g}) steps"
    )
    table = Table("array", "type", "shape", "lowest", "highest")
    for key, array in summary.arrays.items():
        shape = " x ".join(f"{n:,}" for n in array.shape)
        table.add_row(key, array.dtype, shape, f"{array.low:.4g}", f"{array.high:.4g}")
    standard_output().print(table)
    if summary.tasks:
        table = Table("task", "rows solved", "episodes that solve it", "mean reward")
        for task in summary.tasks:
            row = (f"{task.rows:.2%}", f"{task.episodes:.1%}", f"{task.mean_reward:.3f}")
            table.add_row(str(task.task), *row)
        standard_output().print(table)
    for line in summary.picture:
        print(f"  |{line}|")


def _count(transitions: int) -> str:
    """As the names have it: 100k, 10M; exact."""
    for value, unit in ((1_000_000, "M"), (1_000, "k")):
        if transitions and transitions % value == 0:
            return f"{transitions // value}{unit}"
    return f"{transitions:,}"


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
