"""Environments whose episodes depend on one seed and nothing else."""

from __future__ import annotations

import copy
import os
import warnings
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from bench.machine import switch_drawing_off
from bench.simulation._errors import EnvironmentFaultError, describe_error
from bench.simulation._names import environment_id
from bench.simulation._observations import ArraySpec, ArrayTree, ObservationSpace, announced
from bench.simulation._plain import is_plain, pack, plain_attributes, restore_attributes, unpack
from bench.simulation._returned import checked_observation, checked_reward
from bench.simulation._seeding import fixed_action_space, global_generator, split_seed

__all__ = [
    "SeededEnv",
    "environment_id",
    "make",
]


def make(task_name: str, render_mode: str | None = None) -> SeededEnv:
    """Build the environment of a task.

    Where `MUJOCO_GL` is not set and dm_control not imported yet, drawing is switched off for this
    process (``MUJOCO_GL=disabled``), because looking for a display can fail or hang on a machine
    that has none; set the variable to draw images.

    Args:
        task_name: An OGBench single-task name (``cube-single-play-singletask-task1-v0``), an
            OGBench environment, or any gymnasium id with box-shaped actions whose observations are
            a box (vector or image) or a dictionary of boxes.
        render_mode: Passed on to the environment where given; one of its `render_modes`.

    Returns:
        The environment, to be reset with a seed before its first step.

    Raises:
        ValueError: If the name is unknown, the spaces are of another kind, or the task observes
            images while drawing is switched off.
        EnvironmentFaultError: If the environment raises while it is built or reset.
    """
    if "visual" not in task_name:
        switch_drawing_off()
    import gymnasium

    identifier = environment_id(task_name)
    if "visual" in identifier and os.environ.get("MUJOCO_GL") == "disabled":
        raise ValueError(
            f"task {task_name!r} observes images, and MUJOCO_GL=disabled switches drawing off (the "
            "default in worker processes): set MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        )
    with warnings.catch_warnings():
        # OGBench states float64 bounds for a float32 action space at every access.
        warnings.filterwarnings(
            "ignore", r".*Box (low|high)'s precision lowered by casting", UserWarning
        )
        shown: dict[str, Any] = {} if render_mode is None else {"render_mode": render_mode}
        try:
            environment = gymnasium.make(identifier, disable_env_checker=True, **shown)
            with global_generator(np.random.MT19937(0)):
                environment.reset(seed=0)
        except gymnasium.error.Error as error:
            raise ValueError(f"environment {task_name!r} cannot be made: {error}") from error
        except Exception as error:  # an environment is a user's code and raises what it likes
            raise EnvironmentFaultError(
                f"environment {task_name!r} cannot be made and reset: {describe_error(error)}"
            ) from error
        fixed_action_space(environment.unwrapped)
    try:
        observed = announced(environment.observation_space)
    except ValueError as error:
        raise ValueError(
            f"task {task_name!r} has observation_space {environment.observation_space}: {error}"
        ) from error
    if not isinstance(environment.action_space, gymnasium.spaces.Box):
        raise ValueError(
            f"task {task_name!r} has action_space {environment.action_space}, expected a Box"
        )
    return SeededEnv(task_name, environment, observed)


class SeededEnv:
    """One environment with gymnasium's interface and reproducible episodes.

    `reset(seed)` fixes every source of chance of the episode: the environment's generator, its
    action space, NumPy's global generator (which the environment sees only during its own calls;
    the caller's draws are not disturbed) and what an earlier episode left behind. Floating-point
    observations are float32, as in OGBench's data. Observations of a dictionary space are flat
    dictionaries of arrays; an entry of an entry is named ``a/b``.

    Attributes:
        task_name: The name given to `make`.
        observed: Shape and type of an observation, or of every entry of one: float32, or the
            environment's own integer type (images).
        action_low: Lower bounds of the actions `(A,)`.
        action_high: Upper bounds of the actions `(A,)`.
        max_episode_steps: Steps after which an episode is truncated, or None.
    """

    def __init__(self, task_name: str, environment: Any, observed: ObservationSpace) -> None:
        from bench.simulation._physics import Physics

        self.task_name = task_name
        self._environment = environment
        self._base = environment.unwrapped
        self._physics = Physics.of(self._base)
        self._bits = np.random.MT19937(0)
        self.observed = observed
        self.action_low = np.asarray(environment.action_space.low, dtype=np.float32)
        self.action_high = np.asarray(environment.action_space.high, dtype=np.float32)
        specification = environment.spec
        self.max_episode_steps: int | None = (
            None if specification is None else specification.max_episode_steps
        )

    def reset(
        self, seed: int, options: dict[str, Any] | None = None
    ) -> tuple[ArrayTree, dict[str, Any]]:
        """Begin the episode that belongs to a seed.

        Args:
            seed: Any integer >= 0.
            options: Passed on to the environment.

        Returns:
            The first observation and the environment's information.

        Raises:
            EnvironmentFaultError: If the observation is of another shape or kind than it was
                announced to be, or not finite.
        """
        for_environment, for_actions, for_global = split_seed(seed)
        self._bits = np.random.MT19937(for_global)
        if self._physics is not None:
            self._physics.restore_model()
        self._base.action_space.seed(for_actions)
        with global_generator(self._bits):
            observation, info = self._environment.reset(seed=for_environment, options=options)
        return self._converted(observation), info

    def step(
        self, action: Float[np.ndarray, " action"]
    ) -> tuple[ArrayTree, float, bool, bool, dict[str, Any]]:
        """Play one action.

        Args:
            action: The action `(A,)`, inside the bounds.

        Returns:
            Observation, reward, terminated, truncated, information, as gymnasium defines them.

        Raises:
            EnvironmentFaultError: If an observation or reward is of another shape or kind than it
                was announced to be, or not finite.
        """
        if self._physics is not None:
            self._physics.activate()
        outside = get_bit_generator()
        set_bit_generator(self._bits)
        try:
            observation, reward, terminated, truncated, info = self._environment.step(action)
        finally:
            set_bit_generator(outside)
        return (
            self._converted(observation),
            checked_reward(reward),
            bool(terminated),
            bool(truncated),
            info,
        )

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of an observation that is one array; empty for a dictionary."""
        return self.observed.shape if isinstance(self.observed, ArraySpec) else ()

    def _converted(self, observation: Any) -> ArrayTree:
        return checked_observation(observation, self.observed)

    def fork(self) -> SeededEnv:
        """Return another environment for the same task; reset it before use.

        OGBench's environments share the compiled model between forks (milliseconds instead of a
        second, 0.4 MB instead of 70 MB); forks must stay in one thread. Others are built anew.
        """
        if self._physics is None or not type(self._base).__module__.startswith("ogbench."):
            return make(self.task_name)
        from bench.simulation._physics import Physics

        physics, data = self._physics.sibling()
        base = object.__new__(type(self._base))
        for name, value in vars(self._base).items():
            if type(value) is type(data):
                vars(base)[name] = data
            elif name == "_np_random":
                vars(base)[name] = None
            elif is_plain(value) or name in ("_fixed_action_space", "action_space"):
                vars(base)[name] = copy.deepcopy(value)
            else:
                vars(base)[name] = value
        outer: Any = base
        for wrapper in reversed(self._layers()[:-1]):
            twin = copy.copy(wrapper)
            twin.env = outer
            outer = twin
        fork = object.__new__(SeededEnv)
        vars(fork).update(vars(self))
        fork._environment, fork._base, fork._physics = outer, base, physics
        assert isinstance(physics, Physics)
        return fork

    @property
    def unseeded(self) -> Any:
        """The environment underneath, as gymnasium built it."""
        return self._environment

    def _layers(self) -> list[Any]:
        """Return the environment's wrappers from the outside in, and the environment itself."""
        layers = [self._environment]
        while layers[-1] is not self._base:
            layers.append(layers[-1].env)
        return layers

    def state(self) -> UInt8[np.ndarray, " bytes"]:
        """Return all that the rest of the episode depends on, as bytes.

        Contains the full state of the simulator with its derived quantities, the attributes of the
        environment and its wrappers (goals, button states, step counters) and all generators.

        Raises:
            ValueError: If the environment keeps state in objects that cannot be stored.
        """
        actions = self._base.action_space.np_random
        return pack(
            {
                "task": self.task_name,
                "layers": [plain_attributes(layer) for layer in self._layers()],
                "physics": {} if self._physics is None else self._physics.arrays(),
                "global_generator": dict(self._bits.state),
                "action_generator": dict(actions.bit_generator.state),
            }
        )

    def load_state(self, image: UInt8[np.ndarray, " bytes"]) -> None:
        """Continue an episode from what `state` returned, in this process or another.

        Raises:
            ValueError: If the bytes are damaged or belong to another task.
        """
        saved = unpack(image)
        if saved.get("task") != self.task_name:
            raise ValueError(
                f"the saved state belongs to task {saved.get('task')!r}, expected "
                f"{self.task_name!r}"
            )
        for layer, attributes in zip(self._layers(), saved["layers"], strict=True):
            restore_attributes(layer, attributes)
        if self._physics is not None:
            self._physics.load_arrays(saved["physics"])
        self._bits.state = saved["global_generator"]
        self._base.action_space.np_random.bit_generator.state = saved["action_generator"]

    def close(self) -> None:
        """Release what the environment holds (renderers)."""
        self._environment.close()
