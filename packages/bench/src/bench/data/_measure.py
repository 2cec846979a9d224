"""How fast data are made, against the bare simulator, and read, against `ogbench`."""

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.data._generate import Policy, generate, with_walker
from bench.data._load import load
from bench.data._locate import locate
from bench.data._names import DatasetName
from bench.data._npz import read_npz, write_npz
from bench.data._recipes import Recipe, recipe_for
from bench.machine import environment_variables

__all__ = ["GenerationRate", "ReadingCost", "measure_generation", "measure_reading"]


@dataclass(frozen=True, slots=True)
class GenerationRate:
    """What generation costs and what the bare simulator takes of it.

    Attributes:
        processes: that worked.
        transitions: made, those of the validation file included.
        seconds: wall time, from the call to the finished files.
        processor_seconds: of all processes together.
        step_seconds: wall time of a simulator step in one process that does nothing beside it.
        step_processor_seconds: processor time of a simulator step.
    """

    processes: int
    transitions: int
    seconds: float
    processor_seconds: float
    step_seconds: float
    step_processor_seconds: float

    @property
    def rate(self) -> float:
        """Transitions a second."""
        return self.transitions / self.seconds

    @property
    def efficiency(self) -> float:
        """The rate over (simulator steps a second of one process x processes)."""
        return self.rate * self.step_seconds / self.processes

    @property
    def processor_efficiency(self) -> float:
        """Share of the processor time that the simulator took: the efficiency of idle cores."""
        return self.transitions * self.step_processor_seconds / self.processor_seconds


@dataclass(frozen=True, slots=True)
class ReadingCost:
    """What reading a dataset with the rewards of its five tasks costs.

    Attributes:
        reader: who read it.
        seconds: wall time.
        processor_seconds: user and system time.
        peak_bytes: largest memory of the process beyond that of its imports.
    """

    reader: str
    seconds: float
    processor_seconds: float
    peak_bytes: int


def measure_generation(
    dataset: str,
    data_dir: Path,
    *,
    processes: int = 1,
    transitions: int | None = None,
    policy: Policy = "recipe",
) -> GenerationRate:
    """Make data in a temporary folder, and time the simulator alone over one episode of them.

    Args:
        dataset: name, as for `generate`.
        data_dir: where the experts are; nothing stays in it.
        processes: parallel processes.
        transitions: what the name stands for, as for `generate`.
        policy: as for `generate`.

    Raises:
        ValueError: as `generate` does.
    """
    name = DatasetName.parse(dataset)
    recipe = recipe_for(name)
    if recipe.collector == "walker":
        recipe = with_walker(recipe, data_dir, policy)
    # One simulator step by itself: the steps of an episode as it is made, without what is between.
    steps = [_simulator_step(name.environment_id, recipe, data_dir)]
    data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data_dir, prefix=".measure-") as folder:
        place = Path(folder)
        if (data_dir / "experts").exists():
            (place / "experts").symlink_to((data_dir / "experts").absolute())
        made: list[int] = []
        before, began = _processor_seconds(), time.perf_counter()
        generate(
            dataset,
            place,
            processes=processes,
            transitions=transitions,
            policy=policy,
            progress=lambda _, total: made.append(total),
        )
        seconds, spent = time.perf_counter() - began, _processor_seconds() - before
    # Again, as what else the machine does changes the price of a step meanwhile.
    steps.append(_simulator_step(name.environment_id, recipe, data_dir))
    wall, processor = (sum(times) / len(times) for times in zip(*steps, strict=True))
    return GenerationRate(processes, made[-1], seconds, spent, wall, processor)


def _simulator_step(environment_id: str, recipe: Recipe, data_dir: Path) -> tuple[float, float]:
    """Wall and processor time of one simulator step, over the second of two episodes."""
    from bench.data._rollouts import roll_out

    collector = roll_out(environment_id, recipe, data_dir)
    wall, processor, steps = 0.0, 0.0, 0
    bare = collector.environment.step

    def timed(action: np.ndarray) -> Any:
        nonlocal wall, processor, steps
        began, before = time.perf_counter(), time.thread_time()
        result = bare(action)
        processor += time.thread_time() - before
        wall += time.perf_counter() - began
        steps += 1
        return result

    collector.episode(0, "train", 0)
    collector.environment.step = timed
    collector.episode(0, "train", 1)
    collector.environment.close()
    return wall / steps, processor / steps


def measure_reading(
    dataset: str, data_dir: Path | None = None, *, transitions: int | None = None
) -> list[ReadingCost]:
    """Read a dataset with all five tasks, by `bench.data.load` and by `ogbench`.

    Each reader works in a process of its own, `ogbench` task after task, as its interface wants.

    Args:
        dataset: name of a dataset that is on the disk.
        data_dir: folder of the data files, by default OGBench's.
        transitions: read a file of at least so many instead, which repeats the episodes.

    Raises:
        DataMissing: if the data are not there.
    """
    place = locate(dataset, data_dir)
    name = DatasetName.parse(dataset)
    with tempfile.TemporaryDirectory(dir=place.files[0].parent, prefix=".measure-") as folder:
        # Under the standard name, the only one that ogbench reads.
        standard = DatasetName.parse(f"{name.stem}-{name.version}")
        (training,) = standard.files(Path(folder))
        _repeat(place.files[0], training, transitions)
        for path in standard.files(Path(folder), validation=True):
            _repeat(place.files[0], path, 1)
        return [
            _in_a_process(_read_here, str(standard), Path(folder)),
            _in_a_process(_read_with_ogbench, str(standard), Path(folder)),
        ]


def _repeat(source: Path, target: Path, transitions: int | None) -> None:
    """Write whole episodes of a file, again and again until there are enough of them."""
    arrays = read_npz(source)
    ends = np.flatnonzero(arrays["terminals"]) + 1
    wanted = len(arrays["terminals"]) - len(ends) if transitions is None else transitions
    pieces: list[int] = []  # rows of each piece
    made = 0
    while made < wanted:
        below = ends - np.arange(1, len(ends) + 1)  # transitions up to each end
        enough = min(int(np.searchsorted(below, wanted - made)), len(ends) - 1)
        pieces.append(int(ends[enough]))
        made += int(below[enough])
    specs = {key: (array.dtype, (sum(pieces), *array.shape[1:])) for key, array in arrays.items()}
    write_npz(target, specs, lambda key: (arrays[key][:rows] for rows in pieces))


def _in_a_process(read: Callable[[str, Path], str], dataset: str, folder: Path) -> ReadingCost:
    drawing = environment_variables(MUJOCO_GL=os.environ.get("MUJOCO_GL", "disabled"))
    with drawing, ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_measured, read, dataset, folder).result()


def _measured(read: Callable[[str, Path], str], dataset: str, folder: Path) -> ReadingCost:
    import ogbench  # noqa: F401 (its import is nobody's reading time)

    base, before, began = _peak_bytes(), _processor_seconds(), time.perf_counter()
    reader = read(dataset, folder)
    seconds = time.perf_counter() - began
    spent = _processor_seconds() - before
    return ReadingCost(reader, seconds, spent, _peak_bytes() - base)


def _read_here(dataset: str, folder: Path) -> str:
    load(dataset, [f"task{task}" for task in range(1, 6)], folder)
    return "bench.data.load"


def _read_with_ogbench(dataset: str, folder: Path) -> str:
    import ogbench

    name = DatasetName.parse(dataset)
    for task in range(1, 6):
        kept = ogbench.make_env_and_datasets(name.task(task), dataset_dir=str(folder))
        del kept
    return "ogbench.make_env_and_datasets"


def _processor_seconds() -> float:
    """User and system time of this process and of those of its children that have ended."""
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in usage)


def _peak_bytes() -> int:
    """The largest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not `ru_maxrss`: on Linux a process begins with that of the one which started it.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
