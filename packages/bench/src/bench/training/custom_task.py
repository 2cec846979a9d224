"""From a data file and an environment of the user's to a suite of one task, or one clear error."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from bench.data import (
    DataMissing,
    DataRecord,
    Location,
    TaskData,
    default_data_dir,
    folder_option,
    is_dataset_name,
    locate,
    npz_specs,
)
from bench.experiment import OfflineRequest, flag
from bench.simulation import (
    ArraySpec,
    EnvironmentFaultError,
    EnvironmentLimits,
    Rehearsal,
    Spaces,
    rehearse,
)
from bench.suites import CustomTask, Suite, custom_suite, suite
from bench.training.training_data import amount_of_bytes

__all__ = ["chosen_suite", "environment_limits"]

_log = logging.getLogger(__name__)


def chosen_suite(
    options: OfflineRequest,
    *,
    online: bool = False,
    given: TaskData | None = None,
    vectors: bool = True,
) -> Suite:
    """The suite that was asked for, or one of the user's own data and environment.

    The user's environment is led through all that a run asks of it, see
    :func:`bench.simulation.rehearse`, so that what it cannot do is said before anything is trained.

    Args:
        options: of the command.
        online: whether there is an online phase, which stores environments in its checkpoints.
        given: data in memory instead of `--dataset`; they may come without an environment.
        vectors: whether observations have to be vectors, as the agents' own policies take them.

    Raises:
        ValueError: an unknown suite or environment, spaces that are no vectors, an environment
            that fails or cannot be stored, data that do not fit the environment, or options that
            exclude each other.
        BenchError: the data are not there or damaged.
    """
    if options.dataset is None and options.env is None and given is None:
        return _named_suite(options)
    _check_options(options, given)
    length = 1 if options.chunk_length is None else options.chunk_length
    limits = environment_limits(options)
    if options.env is None:
        assert given is not None
        return _without_environment(given, length, options.solved_at)
    if given is None:
        assert options.dataset is not None
        location = _located(options.dataset, options.data_dir)
    found = _rehearsed(options.env, limits, online=online, vectors=vectors)
    threshold = _threshold(options.env, found) if options.solved_at is None else options.solved_at
    if given is None:
        rows, action_range = _check_data(location, options.env, found.spaces)
    else:
        rows, action_range = len(given.terminals), [*filter(None, given.action_range)] or None
        _check_given(given, options.env, found.spaces)
    dataset = options.dataset if given is None else given.dataset
    assert dataset is not None
    low, high = _action_bounds(found.spaces)
    scaled = low or action_range is not None
    if scaled and not _is_range(action_range, found.spaces.action_low, found.spaces.action_high):
        raise ValueError(
            f"{options.env} takes actions from {found.spaces.action_low.tolist()} to "
            f"{found.spaces.action_high.tolist()}, and it is not "
            f"recorded that the actions of {dataset} are scaled from there to [-1, 1] "
            f"(recorded range: {action_range}); import them with `bench data import FILE NAME "
            f"--env {quote(options.env)}{folder_option(options.data_dir)}`, or read them with "
            "bench.load_data(..., action_range=(low, high))"
        )
    task = CustomTask(options.env, dataset, low, high, threshold)
    return custom_suite(_as_name(options.env), task, transitions=rows, chunk_length=length)


def _named_suite(options: OfflineRequest) -> Suite:
    """The suite of that name, if nothing was given that only a task of the user's own has."""
    for name in ("chunk_length", "solved_at"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"{flag(name)} applies to a task of your own; give --dataset and --env with it"
            )
    return suite("quick" if options.suite is None else options.suite)


def _check_options(options: OfflineRequest, given: TaskData | None) -> None:
    """Refuse options of a task of the user's own that exclude each other or make no sense."""
    if given is None and (options.dataset is None or options.env is None):
        raise ValueError(
            "--dataset and --env go together: the data to train on and the environment to "
            "evaluate in"
        )
    if options.suite is not None:
        raise ValueError(
            f"--suite {options.suite} comes with its own data; give either --suite, or --dataset "
            "and --env"
        )
    if options.solved_at is not None and not math.isfinite(options.solved_at):
        raise ValueError(f"--solved-at must be a finite return, got {options.solved_at}")


def _action_bounds(spaces: Spaces) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lowest and highest actions; empty where they are -1 and 1, as agents act."""
    low, high = spaces.action_low, spaces.action_high
    if (low == -1.0).all() and (high == 1.0).all():
        return (), ()
    return tuple(low.tolist()), tuple(high.tolist())


def _without_environment(given: TaskData, length: int, solved_at: float | None) -> Suite:
    """A suite of one task that is played nowhere: a robot's, or one that a function evaluates."""
    lengths = np.diff(given.episode_ends, prepend=-1) - 1
    if length > lengths.max():
        raise ValueError(
            f"chunks of {length} actions are longer than every episode of {given.dataset}, the "
            f"longest of which has {lengths.max()}; give a smaller chunk length"
        )
    name = _as_name(given.dataset)
    task = CustomTask(name, given.dataset, *given.action_range, solved_at, played=False)
    return custom_suite(name, task, transitions=len(given.terminals), chunk_length=length)


def _as_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def environment_limits(options: OfflineRequest) -> EnvironmentLimits:
    """What an environment may take in each of the processes that simulate.

    Raises:
        ValueError: an option is no time or no amount of memory.
    """
    if not (options.env_timeout > 0.0 and math.isfinite(options.env_timeout)):
        raise ValueError(
            f"--env-timeout must be a finite number of seconds above 0, got {options.env_timeout}"
        )
    if options.env_memory != "auto":
        memory = amount_of_bytes("--env-memory", options.env_memory)
        if memory == 0:
            raise ValueError("--env-memory must be above 0; leave it out for an automatic limit")
        return EnvironmentLimits(options.env_timeout, memory)
    return EnvironmentLimits(options.env_timeout)


def _rehearsed(name: str, limits: EnvironmentLimits, *, online: bool, vectors: bool) -> Rehearsal:
    """What the environment does, if a policy (over vectors) can play it."""
    try:
        found = rehearse(name, limits)
    except EnvironmentFaultError as error:
        raise ValueError(str(error)) from error
    low, high = found.spaces.action_low, found.spaces.action_high
    if low.ndim != 1 or (vectors and len(found.spaces.observation_shape) != 1):
        raise ValueError(
            f"environment {name!r} has {found.spaces.describe()} in an array of shape {low.shape}; "
            "expected vectors (register a version of it wrapped in "
            "gymnasium.wrappers.FlattenObservation, and give it as module:id; images and "
            "dictionaries as they are take a policy of your own, see bench.FineTuner)"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"environment {name!r} has unbounded actions, from {low.tolist()} to {high.tolist()}, "
            "but agents act in a box; register a version with bounds of your choice, wrapped in "
            "gymnasium.wrappers.TransformAction(env, lambda action: action, "
            f"gymnasium.spaces.Box(-1.0, 1.0, {low.shape})), and give it as module:id"
        )
    if found.max_episode_steps is None:
        raise ValueError(
            f"environment {name!r} has no step limit, so an evaluation might never end; register "
            "it with max_episode_steps"
        )
    if online and found.unsavable is not None:
        raise ValueError(
            f"environment {name!r} cannot be part of a checkpoint, so there is no online phase in "
            f"it: {found.unsavable}"
        )
    if not found.reproducible:
        _log.warning(
            "environment %r is not determined by its seed: repeated and resumed runs will differ "
            "(draw from self.np_random, which reset(seed=...) seeds)",
            name,
        )
    return found


def _threshold(name: str, found: Rehearsal) -> float | None:
    """The return it is registered as solved at; None where it tells successes itself."""
    if found.tells_success:
        return None
    if found.reward_threshold is None:
        raise ValueError(
            f"environment {name!r} neither tells info['success'] nor is it registered with a "
            "reward_threshold; set --solved-at to the return above which an episode counts as a "
            "success"
        )
    return found.reward_threshold


def _located(dataset: str, data_dir: Path | None) -> Location:
    data_dir = data_dir or default_data_dir()
    try:
        return locate(dataset, data_dir)
    except DataMissing:
        raise
    except ValueError as error:
        raise ValueError(
            f"--dataset {dataset} is neither a .npz file nor imported into {data_dir}, and {error}"
        ) from error


def _check_data(
    location: Location, environment: str, spaces: Spaces
) -> tuple[int, list[Any] | None]:
    """Rows of the data and the range that their actions come from, if the shapes fit."""
    rows = 0
    for path in location.files:
        specs = npz_specs(path)
        _check_shapes(str(path), {key: spec[1] for key, spec in specs.items()}, environment, spaces)
        if "rewards" not in specs and not is_dataset_name(location.name):
            raise ValueError(
                f"{path}: no array 'rewards' (it holds {', '.join(specs)}); import data with "
                "rewards"
            )
        rows += specs["observations"][1][0]
    record = DataRecord.read(location.record_file)
    return rows, None if record is None else record.recipe.get("action_range")


def _check_shapes(
    name: str, shapes: Mapping[str, tuple[int, ...]], environment: str, spaces: Spaces
) -> None:
    """Refuse arrays that are not of an environment's spaces."""
    for key, size in (
        ("observations", spaces.observation_shape[0]),
        ("actions", spaces.action_low.size),
    ):
        if key not in shapes:
            raise ValueError(f"{name}: no array '{key}' (it holds {', '.join(shapes)})")
        if len(shapes[key]) != 2 or shapes[key][1] != size:
            raise ValueError(
                f"{name}: '{key}' has shape {shapes[key]}, but {environment} has {key} of {size} "
                "numbers: the data are of another environment"
            )


def _check_given(given: TaskData, environment: str, spaces: Spaces) -> None:
    """Refuse data in memory whose leaves are not those that an environment observes."""
    observations: Any = given.observations
    named = isinstance(observations, Mapping)
    leaves: Mapping[str, np.ndarray] = observations if named else {"": observations}
    found = {name: ArraySpec(leaf.shape[1:], leaf.dtype) for name, leaf in leaves.items()}
    observed = spaces.observed if isinstance(spaces.observed, dict) else {"": spaces.observed}
    actions = given.actions.shape[1]
    if found != observed or actions != spaces.action_low.size:
        told = ", ".join(f"{name} {leaf}".strip() for name, leaf in found.items())
        raise ValueError(
            f"{given.dataset} has observations {told if not named else '{' + told + '}'} and "
            f"{actions} actions, but {environment} has {spaces.describe()}: the data are of "
            "another environment"
        )


def _is_range(found: list[Any] | None, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether a recorded range, of numbers or of lists, is that of the environment."""
    if found is None:
        return False
    shapes = [np.broadcast_to(np.asarray(bound, np.float32), low.shape) for bound in found]
    return bool(np.array_equal(shapes[0], low) and np.array_equal(shapes[1], high))
