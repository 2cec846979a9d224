"""`bench data`: make, download, import, list, look at and verify datasets."""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console
    from rich.progress import Progress

    from bench.data import FileSummary

__all__ = ["Data"]

_Names = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME ...")]
_Name = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]


@dataclass(frozen=True)
class Generate:
    """Make datasets with OGBench's scripted policies, by the published recipes.

    The same command continues an interrupted one. The number of processes does not change the
    data.

    Attributes:
        names: such as cube-double-play-v0 or pointmaze-medium-navigate-100k-v0.
        data_dir: folder of the data files; OGBench's by default.
        seed: seed of the data.
        transitions: must be what the name stands for; cube-double-play-20k-v0 has 20,000.
        processes: parallel processes; one for each core by default.
        overwrite: replace files that exist and are something else.
        policy: who moves ants and humanoids: the recipe's expert (bench data expert), or random
            actions, which the tables then name as the data's source.
    """

    names: _Names
    data_dir: Path | None = None
    seed: int = 0
    transitions: int | None = None
    processes: int | None = None
    overwrite: bool = False
    policy: Literal["recipe", "random"] = "recipe"

    def run(self) -> int:
        """Make the datasets one after the other."""
        from bench.data import DatasetName, default_data_dir, generate, recipe_for

        for name in _some(self.names):
            # Refuse a bad name before hours of work on a good one.
            recipe_for(DatasetName.parse(name))
        for name in self.names:
            with _progress(name, "transitions") as meter:
                paths = generate(
                    name,
                    self.data_dir or default_data_dir(),
                    seed=self.seed,
                    transitions=self.transitions,
                    processes=self.processes,
                    overwrite=self.overwrite,
                    policy=self.policy,
                    progress=meter,
                )
            where = paths[0] if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
            print(f"{name}: {meter.summary() or 'already there'}: {where}")
        return 0


@dataclass(frozen=True)
class TrainExpert:
    """Train the walker that collects ant or humanoid data, by soft actor-critic.

    The same command continues, also to more steps. Every line says how well it walks: goals reached
    per episode of 1,000 steps, metres per step along the wanted direction, share of steps upright.

    Attributes:
        name: ant or humanoid.
        data_dir: folder of the data files; OGBench's by default. The expert lies in experts/NAME.
        steps: environment steps in all; OGBench's number by default (400,000 and 40 million).
        seed: of the first call.
        walkers: environments that are stepped in turn.
        updates_per_step: gradient steps per environment step.
        checkpoint_every: environment steps between checkpoints.
        episodes: episodes of the last measurement.
    """

    name: Annotated[Literal["ant", "humanoid"], tyro.conf.Positional]
    data_dir: Path | None = None
    steps: int | None = None
    seed: int = 0
    walkers: int = 8
    updates_per_step: float = 0.25
    checkpoint_every: int = 20_000
    episodes: int = 20

    def run(self) -> int:
        """Train, and measure."""
        from bench.data import default_data_dir
        from bench.data.expert import measure_expert, train_expert

        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        expert = train_expert(
            self.name,
            self.data_dir or default_data_dir(),
            steps=self.steps,
            seed=self.seed,
            walkers=self.walkers,
            updates_per_step=self.updates_per_step,
            checkpoint_every=self.checkpoint_every,
            progress=lambda state: print(state, flush=True),
        )
        score = measure_expert(expert, episodes=self.episodes)
        print(
            f"{self.name} expert {expert.fingerprint} after {expert.steps:,} steps, "
            f"{self.episodes} episodes: {score}"
        )
        return 0


@dataclass(frozen=True)
class Get:
    """Download published datasets, verified and resumable.

    The same command continues an interrupted one. Sources: those given here, those of
    $BENCH_DATA_SOURCES, OGBench's own host, a mirror on the Hugging Face hub.

    Attributes:
        names: such as cube-double-play-v0 or cube-triple-play-10m-v0.
        data_dir: folder of the data files; OGBench's by default.
        source: addresses to try before all others.
        validation: also the validation files.
        connections: files downloaded at the same time.
        retries: failures in a row after which a source is given up.
        overwrite: also replace data that were generated or imported here.
    """

    names: _Names
    data_dir: Path | None = None
    source: tuple[str, ...] = ()
    validation: bool = True
    connections: int = 4
    retries: int = 5
    overwrite: bool = False

    def run(self) -> int:
        """Download the datasets one after the other."""
        from bench.data import DatasetName, Patience, default_data_dir, download_sources, get

        sources = download_sources(self.source)
        for name in _some(self.names):
            DatasetName.parse(name)
        for name in self.names:
            with _progress(name, "bytes") as meter:
                done = get(
                    name,
                    self.data_dir or default_data_dir(),
                    sources=sources,
                    validation=self.validation,
                    connections=self.connections,
                    overwrite=self.overwrite,
                    patience=Patience(retries=self.retries),
                    progress=meter,
                )
            print(f"{name}: {meter.summary() or 'already there'}: {done.files[0].parent}")
            for path in done.replaced:
                print(f"  replaced, as it was damaged or of other origin: {path.name}")
            if done.missing:
                print(f"  no source has {len(done.missing)} validation files; training needs none")
        return 0


@dataclass(frozen=True)
class Import:
    """Bring data of your own into the layout of the others, checked.

    Understood are npz and HDF5 files with observations, actions and terminals as OGBench has them,
    or with transitions as D4RL has them, or with groups episode_0, episode_1, ... as Minari has
    them; minari:DATASET where the package minari is installed; and folders of LeRobot datasets.

    Attributes:
        source: the file or folder, or minari:DATASET.
        name: name to give the dataset.
        data_dir: folder of the data files; OGBench's by default.
        observation_keys: entries of a dictionary observation to join, in this order.
        action_range: lowest and highest action of the source, which become -1 and 1.
        env: Gymnasium id whose action bounds are that range, for every entry of an action.
        overwrite: replace a dataset of that name.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    name: _Name
    data_dir: Path | None = None
    observation_keys: tuple[str, ...] = ()
    action_range: tuple[float, float] | None = None
    env: str | None = None
    overwrite: bool = False

    def run(self) -> int:
        """Import the data."""
        from bench.data import default_data_dir, import_data

        if self.env is not None and self.action_range is not None:
            raise ValueError("give --action-range or --env, not both")
        path = import_data(
            self.source,
            self.name,
            self.data_dir or default_data_dir(),
            observation_keys=self.observation_keys,
            action_range=_bounds(self.env) if self.env is not None else self.action_range,
            overwrite=self.overwrite,
        )
        print(f"{self.name}: {path}; `bench data inspect {self.name}` shows what is in it")
        return 0


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

        from bench.data import catalogue, default_data_dir

        folder = self.data_dir or default_data_dir()
        entries = catalogue(folder)
        console = _console()
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
        if any("expert" in way for entry in entries for way in entry.ways):
            print("* needs an expert: train it first, `bench data expert ant` (humanoid: for days)")
        print("size: training transitions; on disk: complete where no number of files is said")
        print(f"folder: {folder}; `bench data verify` reads what is there as a whole")
        return 1 if any(entry.problem for entry in entries) else 0


@dataclass(frozen=True)
class Inspect:
    """Show what a dataset holds: arrays, ranges, episode lengths, success by task, a picture.

    Attributes:
        name: a dataset, or the path of an npz file.
        data_dir: folder of the data files; OGBench's by default.
        validation: look at the validation files.
    """

    name: _Name
    data_dir: Path | None = None
    validation: bool = False

    def run(self) -> int:
        """Print a summary of each file."""
        from bench.data import describe, locate, summarise

        place = locate(self.name, self.data_dir, validation=self.validation)
        record = describe(place)
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

    names: _Names = ()
    data_dir: Path | None = None

    def run(self) -> int:
        """Print what is wrong; exit status 1 if anything is."""
        from bench.data import catalogue, default_data_dir, verify

        folder = self.data_dir or default_data_dir()
        names = self.names or tuple(e.dataset for e in catalogue(folder) if e.present == e.expected)
        if not names:
            print(f"no complete dataset in {folder}")
        wrong = 0
        for name in names:
            with _progress(name, "bytes") as meter:
                problems = verify(name, folder, meter)
            print("\n".join(problems) if problems else f"{name}: intact")
            wrong += len(problems)
        return 1 if wrong else 0


@dataclass(frozen=True)
class Measure:
    """Measure how fast a dataset is made, or read, on this machine; nothing stays on the disk.

    generation: the rate, and its share of (simulator steps a second of one process x processes),
    by wall time and by processor time; on a machine with other work trust the latter.
    reading: time and peak memory of reading it with the rewards of its five tasks, here and by
    ogbench.make_env_and_datasets. The dataset must be on the disk.

    Attributes:
        what: generation or reading.
        name: such as antmaze-large-navigate-20k-v0.
        data_dir: folder of the data files and experts; OGBench's by default.
        transitions: how many to read, for which the episodes there are repeated; how many to make
            is said by the name.
        processes: numbers of processes to measure generation with.
        policy: as for generate.
    """

    what: Annotated[Literal["generation", "reading"], tyro.conf.Positional]
    name: _Name
    data_dir: Path | None = None
    transitions: int | None = None
    processes: tuple[int, ...] = (1,)
    policy: Literal["recipe", "random"] = "recipe"

    def run(self) -> int:
        """Print the figures, a line for each measurement."""
        from bench.data import default_data_dir
        from bench.data._measure import measure_generation, measure_reading

        folder = self.data_dir or default_data_dir()
        if self.what == "reading":
            for cost in measure_reading(self.name, folder, transitions=self.transitions):
                print(
                    f"{cost.reader}: {cost.seconds:.1f} s, {cost.processor_seconds:.1f} s of "
                    f"processor time, {cost.peak_bytes / 1e9:.2f} GB at its peak"
                )
            return 0
        for processes in self.processes:
            made = measure_generation(
                self.name,
                folder,
                processes=processes,
                transitions=self.transitions,
                policy=self.policy,
            )
            print(
                f"{processes} process{'es' * (processes > 1)}: {made.transitions:,} transitions, "
                f"{made.rate:,.0f} a second; the bare simulator makes "
                f"{1.0 / made.step_seconds:,.0f} steps a second in one process: "
                f"{made.efficiency:.0%} of it by wall time, "
                f"{made.processor_efficiency:.0%} by processor time "
                f"({made.processor_seconds:.1f} s)"
            )
        return 0


@dataclass(frozen=True)
class Data:
    """Make, download, import, list, look at and verify datasets."""

    action: tyro.conf.OmitSubcommandPrefixes[
        Annotated[Generate, tyro.conf.subcommand("generate")]
        | Annotated[TrainExpert, tyro.conf.subcommand("expert")]
        | Annotated[Get, tyro.conf.subcommand("get")]
        | Annotated[Import, tyro.conf.subcommand("import")]
        | Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Measure, tyro.conf.subcommand("measure")]
    ]

    def run(self) -> int:
        """Run the action; what the system refuses is said with what to do about it."""
        try:
            return self.action.run()
        except BrokenPipeError:
            return 1  # Who was reading the output has gone, as `head` does.
        except OSError as error:
            place = "" if error.filename is None else f"{error.filename}: "
            advice = _ADVICE.get(error.errno or 0, "run it again, or elsewhere with --data-dir")
            raise BenchError(f"{place}{error.strerror or error}; {advice}") from error


_ELSEWHERE = "give another folder with --data-dir"
_ADVICE = {
    errno.ENOENT: f"check the path, or {_ELSEWHERE}",
    errno.ENOTDIR: f"there is a file where a folder is needed: {_ELSEWHERE}",
    errno.EEXIST: f"there is a file where a folder is needed: {_ELSEWHERE}",
    errno.EISDIR: "there is a folder where a file is needed: move it away",
    errno.EACCES: f"see to its permissions, or {_ELSEWHERE}",
    errno.EPERM: f"see to its permissions, or {_ELSEWHERE}",
    errno.EROFS: _ELSEWHERE,
    errno.ENOSPC: f"make space and run it again, which continues, or {_ELSEWHERE}",
}
"""What to do about an error of the system."""


def _bounds(env: str) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    from bench.simulation import make

    environment = make(env)
    environment.close()
    return environment.action_low, environment.action_high


def _some(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise ValueError("no dataset was named; `bench data list` lists them")
    return names


def _count(transitions: int) -> str:
    """As the names have it: 100k, 10M; exact."""
    for value, unit in ((1_000_000, "M"), (1_000, "k")):
        if transitions and transitions % value == 0:
            return f"{transitions // value}{unit}"
    return f"{transitions:,}"


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _console() -> "Console":
    from rich.console import Console

    # A pipe has no width: a table cut to 80 columns would lose names.
    return Console(width=None if sys.stdout.isatty() else 160)


class _Meter:
    """Work done and its rate; drawn as a bar on a terminal, silent elsewhere."""

    def __init__(self, name: str, unit: str, bar: "Progress") -> None:
        self._unit = unit
        self._bar = bar
        self._task = bar.add_task(name, total=None, rate="")
        self._begin = time.perf_counter()
        self._first: int | None = None
        self._done = 0

    def __call__(self, done: int, total: int) -> None:
        if self._first is None:
            self._first, self._begin = done, time.perf_counter()
        self._done = done
        self._bar.update(self._task, completed=done, total=total, rate=self._rate())

    def _rate(self) -> str:
        new = self._done - (self._first or 0)
        seconds = time.perf_counter() - self._begin
        if not new or not seconds:
            return ""
        if self._unit == "bytes":
            return f"{new / seconds / 1e6:,.1f} MB/s"
        return f"{new / seconds:,.0f} {self._unit}/s"

    def summary(self) -> str:
        """How much was done at what rate; empty if nothing was."""
        rate = self._rate()
        return f"{self._done - (self._first or 0):,} {self._unit} at {rate}" if rate else ""


@contextmanager
def _progress(name: str, unit: str) -> Iterator[_Meter]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    bar = Progress(
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        yield _Meter(name, unit, bar)


def _print_summary(summary: "FileSummary") -> None:
    from rich.table import Table

    shortest, median, longest = summary.lengths
    print(
        f"  {summary.episodes:,} episodes of {shortest:,} to {longest:,} (median {median:,g}) steps"
    )
    table = Table("array", "type", "shape", "lowest", "highest")
    for key, array in summary.arrays.items():
        shape = " x ".join(f"{n:,}" for n in array.shape)
        table.add_row(key, array.dtype, shape, f"{array.low:.4g}", f"{array.high:.4g}")
    _console().print(table)
    if summary.tasks:
        table = Table("task", "rows solved", "episodes that solve it", "mean reward")
        for task in summary.tasks:
            row = (f"{task.rows:.2%}", f"{task.episodes:.1%}", f"{task.mean_reward:.3f}")
            table.add_row(str(task.task), *row)
        _console().print(table)
    for line in summary.picture:
        print(f"  |{line}|")
