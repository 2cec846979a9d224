"""Datasets made by OGBench's scripted policies, in parallel processes and resumable."""

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Literal

from bench.data._errors import DataMissing
from bench.data._names import DatasetName
from bench.data._parts import FilePlan, Part, plan_files, roll_part
from bench.data._recipes import Recipe, recipe_for
from bench.data._record import DataRecord, FileRecord, Source, simulator_versions
from bench.errors import BenchError
from bench.machine import available_cores, environment_variables
from bench.storage import RunLock

Progress = Callable[[int, int], None]
"""Called with the transitions done and the transitions in all."""

Policy = Literal["recipe", "random", "any"]
"""Who moves a walker: the recipe's expert, nobody, or an expert where there is one."""


def generate(
    dataset: str,
    data_dir: Path,
    *,
    seed: int = 0,
    transitions: int | None = None,
    processes: int | None = None,
    overwrite: bool = False,
    recipe: Recipe | None = None,
    policy: Policy = "recipe",
    progress: Progress | None = None,
) -> list[Path]:
    """Make a dataset by its published recipe, in OGBench's file layout.

    Episode e of a split depends on (seed, split, e) alone. Finished parts stay on disk, so the same
    call continues an interrupted one. A call for data that exist does nothing.

    With more than one process, call this under `if __name__ == "__main__":`, since the processes
    are spawned and import the main module.

    Args:
        dataset: name, e.g. `cube-double-play-v0` or `pointmaze-medium-navigate-100k-v0`.
        data_dir: folder of the data files.
        seed: seed of all episodes.
        transitions: training transitions, rounded up to whole episodes, of a ``recipe``; otherwise
            the dataset's name states them. A tenth as many episodes (at least one) validate.
        processes: parallel processes, by default one for each core; 1 works in this process.
        overwrite: replace files that exist and differ in recipe, seed, size or origin.
        recipe: instead of the published one.
        policy: `random` lets walkers (ants, humanoids) move at random, without an expert; the
            record's source says so, and with it every result. `any` does so without an expert.
        progress: called at the start and after every few episodes.

    Returns:
        The training files.

    Raises:
        ValueError: no recipe makes it, impossible sizes, or other files are in the way.
        DataMissing: if the recipe needs an expert that is not there.
        RunLockedError: if another process is generating the same data.
        BenchError: if a process dies.
        OSError: if a file cannot be written.
    """
    name = DatasetName.parse(dataset)
    recipe = _recipe_of(name, transitions) if recipe is None else recipe
    if recipe.collector == "walker":
        recipe = with_walker(recipe, data_dir, policy)
    processes = available_cores() if processes is None else processes
    _check_settings(seed=(seed, 0), processes=(processes, 1), transitions=(transitions, 1))
    made = _record_of(name, recipe, seed)
    parts_dir = data_dir / f".{name}.{_key(made)}.parts"
    plans = plan_files(name, recipe, data_dir, parts_dir, transitions)
    training = [plan.path for plan in plans if plan.split == "train"]
    if not overwrite and _already_made(name, data_dir, plans, made.recipe, made.source):
        return training
    with RunLock(parts_dir, alternative="another folder with --data-dir"):
        files = _fill(plans, name.environment_id, recipe, seed, processes, progress)
        replace(made, files=files).write(name.record_file(data_dir))
        shutil.rmtree(parts_dir)
    return training


def _recipe_of(name: DatasetName, transitions: int | None) -> Recipe:
    """The published recipe, if the name stands for so many transitions."""
    recipe = recipe_for(name)
    _check_size(name, recipe, transitions)
    return recipe


def _record_of(name: DatasetName, recipe: Recipe, seed: int) -> DataRecord:
    """What will be recorded of the data, but for their files."""
    source: Source = "random policy" if recipe.collector == "random" else "generated"
    settings = {"seed": seed, **recipe.settings()}
    return DataRecord(str(name), source, "", settings, simulator_versions(), {})


def _key(made: DataRecord) -> str:
    """Name of the folder of the parts: those made by other settings are never mixed in."""
    text = json.dumps([made.recipe, made.versions])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_size(name: DatasetName, recipe: Recipe, transitions: int | None) -> None:
    """Refuse another number of transitions than the name stands for: tables know data by name."""
    stated = name.transitions or recipe.transitions
    if transitions is None or transitions == stated:
        return
    thousands = max(1, -(-transitions // 1000))
    raise ValueError(
        f"'{name}' stands for {stated:,} transitions, not {transitions:,}: other sizes have names "
        f"of their own, such as {name.resized(1000 * thousands)} (leave the number out then)"
    )


def _check_settings(**bounds: tuple[int | None, int]) -> None:
    for setting, (value, least) in bounds.items():
        if value is not None and value < least:
            raise ValueError(f"{setting} is {value}; expected {least} or more")


def with_walker(recipe: Recipe, data_dir: Path, policy: Policy) -> Recipe:
    """The recipe with the fingerprint of the expert of this data folder, or without one."""
    from bench.data.expert import Expert

    if policy != "random":
        try:
            expert = Expert.load(data_dir, recipe.walker)
            return replace(recipe, expert=expert.fingerprint)
        except DataMissing:
            if policy == "recipe":
                raise
    return replace(recipe, collector="random", noise=0.0)


def _already_made(
    name: DatasetName,
    data_dir: Path,
    plans: Sequence[FilePlan],
    settings: dict[str, Any],
    source: Source,
) -> bool:
    """Whether the files are there and are those asked for.

    Raises:
        ValueError: if files are there that are something else.
    """
    record = DataRecord.read(name.record_file(data_dir))
    present = [plan for plan in plans if plan.path.exists() and not plan.receipt.exists()]
    if not present:
        return False
    if record is not None and record.source == source and record.recipe == settings:
        sizes = {file: entry.episodes for file, entry in record.files.items()}
        if len(present) == len(plans) and sizes == {p.path.name: p.episodes for p in plans}:
            return True
    found = "nothing is recorded of their origin" if record is None else f"they are {record.source}"
    raise ValueError(
        f"{present[0].path} exists, but is not what was requested ({found}, with other settings, "
        "size or files): replace it with --overwrite, or use another folder with --data-dir"
    )


def _fill(
    plans: Sequence[FilePlan],
    environment_id: str,
    recipe: Recipe,
    seed: int,
    processes: int,
    progress: Progress | None,
) -> dict[str, FileRecord]:
    """Make what is missing of every file; their records by file name."""
    files, missing = {}, {}
    jobs: list[tuple[FilePlan, Part]] = []
    for plan in plans:
        if plan.receipt.exists() and plan.path.exists():
            files[plan.path.name] = FileRecord.read(plan.receipt)
            continue
        rest = [part for part in plan.parts if not part.path.exists()]
        missing[plan] = len(rest)
        jobs += [(plan, part) for part in rest]
        if not rest:
            files[plan.path.name] = plan.assemble()
    per_episode = recipe.rows - 1
    total = per_episode * sum(plan.episodes for plan in plans)
    done = total - per_episode * sum(part.episodes for _, part in jobs)
    if progress is not None:
        progress(done, total)
    with _finished(jobs, environment_id, recipe, seed, processes) as finished:
        for plan, part in finished:
            done += per_episode * part.episodes
            missing[plan] -= 1
            if missing[plan] == 0:
                files[plan.path.name] = plan.assemble()
            if progress is not None:
                progress(done, total)
    return {plan.path.name: files[plan.path.name] for plan in plans}


@contextmanager
def _finished(
    jobs: Sequence[tuple[FilePlan, Part]],
    environment_id: str,
    recipe: Recipe,
    seed: int,
    processes: int,
) -> Iterator[Iterator[tuple[FilePlan, Part]]]:
    """The jobs, each as soon as it is done, worked on by the given number of processes."""
    if processes == 1 or len(jobs) <= 1:
        yield _in_this_process(jobs, environment_id, recipe, seed)
        return
    # One core each: MuJoCo and NumPy must not start threads of their own, nor look for a display.
    with environment_variables(OMP_NUM_THREADS="1", MUJOCO_GL="disabled"):
        pool = ProcessPoolExecutor(
            min(processes, len(jobs)), get_context("spawn"), initializer=_start_worker
        )
        try:
            yield _in_pool(pool, jobs, 2 * processes, environment_id, recipe, seed)
        except BrokenProcessPool as error:
            raise BenchError(
                "a worker generating data died (usually out of memory); rerun the command to "
                "resume, with fewer --processes if memory is short"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _in_this_process(
    jobs: Sequence[tuple[FilePlan, Part]], environment_id: str, recipe: Recipe, seed: int
) -> Iterator[tuple[FilePlan, Part]]:
    for plan, part in jobs:
        roll_part(environment_id, recipe, seed, part)
        yield plan, part


def _in_pool(
    pool: ProcessPoolExecutor,
    jobs: Sequence[tuple[FilePlan, Part]],
    ahead: int,
    environment_id: str,
    recipe: Recipe,
    seed: int,
) -> Iterator[tuple[FilePlan, Part]]:
    """Keep `ahead` jobs queued, so that an interruption has little to wait for."""
    queued: dict[Future[None], tuple[FilePlan, Part]] = {}
    waiting = iter(jobs)
    while True:
        for job in waiting:
            queued[pool.submit(roll_part, environment_id, recipe, seed, job[1])] = job
            if len(queued) >= ahead:
                break
        if not queued:
            return
        for future in wait(queued, return_when=FIRST_COMPLETED).done:
            future.result()
            yield queued.pop(future)


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
