"""From a data file and an environment of the user's to a suite of one task, or one clear error."""

import math
import re
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.data import (
    DataMissing,
    DataRecord,
    default_data_dir,
    folder_option,
    is_dataset_name,
    locate,
    npz_specs,
)
from bench.experiment import OfflineRequest
from bench.suites import OwnTask, Suite, own_suite, suite

if TYPE_CHECKING:
    from bench.simulation import SeededEnv

__all__ = ["chosen_suite"]


def chosen_suite(options: OfflineRequest) -> Suite:
    """The suite that was asked for, or one of the user's own data and environment.

    Raises:
        ValueError: an unknown suite or environment, spaces that are no vectors, data that do not
            fit the environment, or options that exclude each other.
        BenchError: the data are not there or damaged.
    """
    if options.dataset is None and options.env is None:
        for name in ("horizon", "solved_at"):
            if getattr(options, name) is not None:
                flag = name.replace("_", "-")
                raise ValueError(f"--{flag} is of your own task; give --dataset and --env with it")
        return suite("quick" if options.suite is None else options.suite)
    if options.dataset is None or options.env is None:
        raise ValueError("--dataset and --env belong together: what to train on, what to play in")
    if options.suite is not None:
        raise ValueError(
            f"--suite {options.suite} has data of its own: give --suite, or --dataset and --env, "
            "not both"
        )
    horizon = 1 if options.horizon is None else options.horizon
    if horizon < 1:
        raise ValueError(f"--horizon must be at least 1, got {horizon}")
    if options.solved_at is not None and not math.isfinite(options.solved_at):
        raise ValueError(f"--solved-at must be a finite return, got {options.solved_at}")
    environment = _make(options.env)
    try:
        threshold = _threshold(environment) if options.solved_at is None else options.solved_at
    finally:
        environment.close()
    rows, action_range = _check_data(options.dataset, options.data_dir, environment)
    low, high = environment.action_low, environment.action_high
    plain = bool((low == -1.0).all() and (high == 1.0).all())
    if not plain and not _is_range(action_range, low, high):
        raise ValueError(
            f"{options.env} takes actions from {low.tolist()} to {high.tolist()}, and it is not "
            f"recorded that the actions of {options.dataset} are scaled from there to [-1, 1] "
            f"(recorded range: {action_range}); import them with `bench data import FILE NAME "
            f"--env {quote(options.env)}{folder_option(options.data_dir)}`"
        )
    task = OwnTask(
        options.env,
        options.dataset,
        () if plain else tuple(low.tolist()),
        () if plain else tuple(high.tolist()),
        threshold,
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", options.env)
    return own_suite(name, task, transitions=rows, horizon=horizon)


def _make(name: str) -> "SeededEnv":
    """The environment, if a policy over vectors can play it."""
    import gymnasium

    from bench.simulation import make

    try:
        environment = make(name)
    except gymnasium.error.Error as error:
        raise ValueError(f"environment {name!r} cannot be made: {error}") from error
    low, high = environment.action_low, environment.action_high
    if len(environment.observation_shape) != 1 or low.ndim != 1:
        raise ValueError(
            f"environment {name!r} has observations of shape {environment.observation_shape} and "
            f"actions of shape {low.shape}; expected vectors (register a version of it wrapped in "
            "gymnasium.wrappers.FlattenObservation, and give it as module:id)"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"environment {name!r} has unbounded actions, from {low.tolist()} to {high.tolist()}; "
            "agents act in a box (wrap it in gymnasium.wrappers.RescaleAction)"
        )
    if environment.max_episode_steps is None:
        raise ValueError(
            f"environment {name!r} has no step limit, so an evaluation might never end; register "
            "it with max_episode_steps"
        )
    return environment


def _threshold(environment: "SeededEnv") -> float | None:
    """The return it is registered as solved at; None where it tells successes itself."""
    environment.reset(0)
    action = 0.5 * (environment.action_low + environment.action_high)
    ended = False
    while not ended:  # Some tell it in an episode's last step only.
        _, _, terminated, truncated, told = environment.step(action)
        if "success" in told or "is_success" in told:
            return None
        ended = terminated or truncated
    threshold: float | None = environment.unseeded.spec.reward_threshold
    if threshold is None:
        raise ValueError(
            f"environment {environment.task_name!r} neither tells info['success'] nor is it "
            "registered with a reward_threshold: say with --solved-at from which return on an "
            "episode counts as a success"
        )
    return threshold


def _check_data(
    dataset: str, data_dir: Path | None, environment: "SeededEnv"
) -> tuple[int, list[Any] | None]:
    """Rows of the data and the range that their actions come from, if the shapes fit."""
    data_dir = data_dir or default_data_dir()
    try:
        location = locate(dataset, data_dir)
    except DataMissing:
        raise
    except ValueError as error:
        raise ValueError(
            f"--dataset {dataset} is neither a .npz file nor imported into {data_dir}, and {error}"
        ) from error
    rows = 0
    for path in location.files:
        specs = npz_specs(path)
        for key, size in (
            ("observations", environment.observation_shape[0]),
            ("actions", environment.action_low.size),
        ):
            if key not in specs:
                raise ValueError(f"{path}: no array '{key}' (it holds {', '.join(specs)})")
            shape = specs[key][1]
            if len(shape) != 2 or shape[1] != size:
                raise ValueError(
                    f"{path}: '{key}' has shape {shape}, but {environment.task_name} has {key} of "
                    f"{size} numbers: the data are of another environment"
                )
        if "rewards" not in specs and not is_dataset_name(location.name):
            raise ValueError(
                f"{path}: no array 'rewards' (it holds {', '.join(specs)}); import data with "
                "rewards"
            )
        rows += specs["observations"][1][0]
    record = DataRecord.read(location.record_file)
    return rows, None if record is None else record.recipe.get("action_range")


def _is_range(found: list[Any] | None, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether a recorded range, of numbers or of lists, is that of the environment."""
    if found is None:
        return False
    shapes = [np.broadcast_to(np.asarray(bound, np.float32), low.shape) for bound in found]
    return bool(np.array_equal(shapes[0], low) and np.array_equal(shapes[1], high))
