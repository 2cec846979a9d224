"""One episode of a recipe, a function of (seed, split, episode) alone.

OGBench draws from three sources: NumPy's global generator (oracles, mazes), the environment's own
generator and, in mazes, the action space's. All are seeded anew for every episode, so that an
episode does not depend on which process rolls it out, nor on the episodes before it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from bench.data._environments import make_environment
from bench.data._recipes import Recipe

Episode = dict[str, Shaped[np.ndarray, "rows ..."]]
"""Arrays of one episode by OGBench's key; equal numbers of rows."""

DTYPES = {"terminals": np.dtype(bool), "button_states": np.dtype(np.int64)}
"""Types of the arrays in a file that are not float32."""

SPLITS = ("train", "val")
_MAX_ATTEMPTS = 100
_STEPS_IN_A_DIRECTION = 10
_STITCHED_CELLS = 4


def roll_out(environment_id: str, recipe: Recipe, data_dir: Path) -> "Rollout":
    """Make the environment and the policy of a recipe.

    Args:
        environment_id: e.g. `cube-double-v0`.
        recipe: its recipe.
        data_dir: data folder, where experts lie.

    Returns:
        An object whose `episode(seed, split, number)` gives one episode's arrays.
    """
    match recipe.collector:
        case "manipulation":
            return _ManipulationRollout(environment_id, recipe)
        case "noisy manipulation":
            return _NoisyManipulationRollout(environment_id, recipe)
        case "walker":
            return _WalkerRollout(environment_id, recipe, data_dir)
        case "random":
            return _RandomRollout(environment_id, recipe)
        case "maze":
            return _MazeRollout(environment_id, recipe)


class Rollout:
    """The bookkeeping that the collectors share: seeding, repeats and array types."""

    def __init__(self, environment: Any, recipe: Recipe) -> None:
        self.environment = environment
        self.recipe = recipe

    def episode(self, seed: int, split: str, number: int) -> Episode:
        """Roll out one episode.

        Args:
            seed: seed of the dataset.
            split: `train` or `val`.
            number: index of the episode in its split.

        Returns:
            observations (rows, O), actions (rows, A), terminals (rows,), qpos, qvel and, where
            there are buttons, button_states. Row i holds the state before action i; the last row
            is the final state, marked terminal.
        """
        for attempt in range(_MAX_ATTEMPTS):
            key = (SPLITS.index(split), number, attempt)
            words = np.random.SeedSequence(seed, spawn_key=key).generate_state(2)
            with _global_generator(int(words[0])):
                columns = self._collect(int(words[1]))
            episode = {
                key: np.asarray(rows, dtype=DTYPES.get(key, np.dtype(np.float32)))
                for key, rows in columns.items()
            }
            if self._acceptable(episode):
                return episode
        raise RuntimeError(f"no acceptable {split} episode {number} in {_MAX_ATTEMPTS} attempts")

    def _collect(self, seed: int) -> dict[str, list[Any]]:
        raise NotImplementedError

    def _acceptable(self, episode: Episode) -> bool:
        return True


class _ManipulationRollout(Rollout):
    """OGBench's plan oracles, one random target after the other ("play")."""

    def __init__(self, environment_id: str, recipe: Recipe) -> None:
        environment = make_environment(
            environment_id, terminate_at_goal=False, mode="data_collection"
        )
        super().__init__(environment, recipe)
        self._family = environment_id.split("-")[0]
        self._oracles = self._make_oracles()

    def _make_oracles(self) -> dict[str, Any]:
        """An oracle for every kind of target."""
        from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
        from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
        from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
        from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

        plan = {"env": self.environment, "noise": self.recipe.noise, "noise_smoothing": 0.5}
        # A puzzle has nothing to grasp: its arm keeps the gripper shut throughout.
        shut = self._family == "puzzle"
        return {
            "cube": CubePlanOracle(**plan),
            "button": ButtonPlanOracle(gripper_always_closed=shut, **plan),
            "drawer": DrawerPlanOracle(**plan),
            "window": WindowPlanOracle(**plan),
        }

    def _begin(self) -> None:
        """What an episode draws for itself, behind its stacking."""

    def _act(self, oracle: Any, observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        """The next action, in [-1, 1]."""
        return np.asarray(np.clip(oracle.select_action(observation, info), -1.0, 1.0))

    def _collect(self, seed: int) -> dict[str, list[Any]]:
        environment = self.environment
        observation, info = environment.reset(seed=seed)
        p_stack = np.random.uniform(*self.recipe.stacking)  # noqa: NPY002 (seeded just before)
        self._begin()
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)

        keys = ["observations", "actions", "terminals", "qpos", "qvel"]
        keys += ["button_states"] if "button_states" in info else []
        columns: dict[str, list[Any]] = {key: [] for key in keys}
        for row in range(self.recipe.rows):
            action = self._act(oracle, observation, info)
            columns["observations"].append(observation)
            observation, _, _, _, info = environment.step(action)
            columns["actions"].append(action)
            columns["terminals"].append(row == self.recipe.rows - 1)
            for key in keys[3:]:
                columns[key].append(info[f"prev_{key}"])
            if oracle.done:
                target_observation, target_info = environment.set_new_target(p_stack=p_stack)
                oracle = self._oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
        return columns

    def _acceptable(self, episode: Episode) -> bool:
        """In a scene, the cube must stay in sight unless it lies in the drawer."""
        if self._family != "scene":
            return True
        y, z = episode["qpos"][:, 15], episode["qpos"][:, 16]
        too_far_left = (y <= -0.3) & ((z < 0.06) | (z > 0.08))
        return not bool((y >= 0.29).any() or too_far_left.any())


class _NoisyManipulationRollout(_ManipulationRollout):
    """OGBench's Markov oracles, with Gaussian noise on their actions and random ones ("noisy")."""

    _NOISE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
    """Of each component, in units of the episode's level: position, yaw and gripper."""

    def _make_oracles(self) -> dict[str, Any]:
        from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
        from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
        from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
        from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle

        markov = {"env": self.environment, "min_norm": 0.4}
        # In a scene a cube may be where no gripper gets it: the oracle gives up.
        patience = {"max_step": 100} if self._family == "scene" else {}
        shut = self._family == "puzzle"
        return {
            "cube": CubeMarkovOracle(**markov, **patience),
            "button": ButtonMarkovOracle(gripper_always_closed=shut, **markov),
            "drawer": DrawerMarkovOracle(**markov),
            "window": WindowMarkovOracle(**markov),
        }

    def _begin(self) -> None:
        self._level = np.random.uniform(0.0, self.recipe.noise)  # noqa: NPY002 (seeded just before)

    def _act(self, oracle: Any, observation: np.ndarray, info: dict[str, Any]) -> np.ndarray:
        if np.random.rand() < self.recipe.random_actions:  # noqa: NPY002 (seeded just before)
            # Not action_space.sample(): every look at that property makes a space of its own.
            return np.random.uniform(-1.0, 1.0, len(self._NOISE))  # noqa: NPY002
        action = np.asarray(oracle.select_action(observation, info))
        noise = np.random.normal(0.0, self._level * self._NOISE)  # noqa: NPY002
        return np.clip(action + noise, -1.0, 1.0)


class _MazeRollout(Rollout):
    """A point that walks the shortest path to its goal, or in one direction after the other."""

    def __init__(self, environment_id: str, recipe: Recipe) -> None:
        super().__init__(make_environment(environment_id, terminate_at_goal=False), recipe)
        free = self.environment.maze_map == 0
        self._cells = [(int(i), int(j)) for i, j in np.argwhere(free)]
        self._vertices = [cell for cell in self._cells if not _is_hallway(free, *cell)]
        self._free = free
        self._subgoals: dict[tuple[Any, Any], np.ndarray] = {}

    def _collect(self, seed: int) -> dict[str, list[Any]]:
        environment = self.environment
        environment.action_space.seed(seed)  # Its reset takes a few random steps.
        start = _choose(self._cells)
        goal = self._goal(start)
        task = {"init_ij": start, "goal_ij": goal}
        observation, _ = environment.reset(options={"task_info": task}, seed=seed)
        columns: dict[str, list[Any]] = {
            key: [] for key in ("observations", "actions", "terminals", "qpos", "qvel")
        }
        goal_cell = environment.xy_to_ij(environment.cur_goal_xy)
        for row in range(self.recipe.rows):
            if self.recipe.goals != "explore":
                position = environment.get_xy()
                direction = _unit(self._subgoal(position, goal_cell) - position)
            elif row % _STEPS_IN_A_DIRECTION == 0:
                direction = _unit(np.random.randn(2))  # noqa: NPY002 (seeded just before)
            action = self._act(observation, direction)
            scale = self.recipe.noise
            noise = np.random.normal(0.0, scale, len(action))  # noqa: NPY002 (seeded just before)
            action = np.minimum(np.maximum(action + noise, -1.0), 1.0)
            columns["observations"].append(observation)
            observation, _, _, _, info = environment.step(action)
            columns["actions"].append(action)
            columns["terminals"].append(row == self.recipe.rows - 1)
            columns["qpos"].append(info["prev_qpos"])
            columns["qvel"].append(info["prev_qvel"])
            if info["success"] and self.recipe.goals == "navigate":
                # Not set_goal(goal_ij): that writes NaN into the position of the goal's marker.
                centre = environment.ij_to_xy(_choose(self._vertices))
                environment.set_goal(goal_xy=environment.add_noise(centre))
                goal_cell = environment.xy_to_ij(environment.cur_goal_xy)
        return columns

    def _goal(self, start: tuple[int, int]) -> tuple[int, int]:
        """The first one, or the only one: four cells away, if there are such cells."""
        if self.recipe.goals != "stitch":
            return _choose(self._vertices)
        near = _cells_away(self._free, start, _STITCHED_CELLS)
        return _choose(near) if near else start

    def _act(self, observation: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """What to do before the noise; a point goes where it is told."""
        return direction

    def _subgoal(self, position: np.ndarray, goal_cell: tuple[int, int]) -> np.ndarray:
        """Centre of the next cell on the way; depends on the two cells only, so it is kept."""
        environment = self.environment
        cells = environment.xy_to_ij(position), goal_cell
        if cells not in self._subgoals:
            goal = environment.cur_goal_xy
            self._subgoals[cells] = environment.get_oracle_subgoal(position, goal)[0]
        return self._subgoals[cells]


class _WalkerRollout(_MazeRollout):
    """The same with legs: an expert walks in the direction of the path."""

    def __init__(self, environment_id: str, recipe: Recipe, data_dir: Path) -> None:
        from bench.data.expert import Expert

        super().__init__(environment_id, recipe)
        self._expert = Expert.load(data_dir, recipe.walker)
        if self._expert.fingerprint != recipe.expert:
            raise ValueError(
                f"the {recipe.walker} expert below {data_dir} has changed since this data set was "
                "begun (is it still being trained?); begin again when it is finished"
            )

    def _act(self, observation: np.ndarray, direction: np.ndarray) -> np.ndarray:
        return self._expert.act(observation[self._expert.body.skipped :], direction)


class _RandomRollout(_MazeRollout):
    """Uniformly random actions."""

    def _act(self, observation: np.ndarray, direction: np.ndarray) -> np.ndarray:
        low, high = self.environment.action_space.low, self.environment.action_space.high
        return np.asarray(np.random.uniform(low, high))  # noqa: NPY002 (seeded just before)


def _choose(cells: list[tuple[int, int]]) -> tuple[int, int]:
    return cells[np.random.randint(len(cells))]  # noqa: NPY002 (seeded just before)


def _unit(direction: np.ndarray) -> np.ndarray:
    # Not np.linalg.norm and np.clip: they took a twentieth of a step each.
    direction /= math.sqrt(direction.dot(direction)) + 1e-6
    return direction


def _cells_away(free: np.ndarray, start: tuple[int, int], steps: int) -> list[tuple[int, int]]:
    """The free cells that the shortest path takes so many steps to, in order of discovery."""
    front, seen = [start], {start}
    for _ in range(steps):
        reached: list[tuple[int, int]] = []
        for i, j in front:
            for cell in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)):
                inside = 0 <= cell[0] < free.shape[0] and 0 <= cell[1] < free.shape[1]
                if inside and free[cell] and cell not in seen:
                    seen.add(cell)
                    reached.append(cell)
        front = reached
    return front


def _is_hallway(free: np.ndarray, i: int, j: int) -> bool:
    """Whether a cell is open on two opposite sides and walled on the other two."""
    vertical, horizontal = free[[i - 1, i + 1], j], free[i, [j - 1, j + 1]]
    return bool(
        (vertical.all() and not horizontal.any()) or (horizontal.all() and not vertical.any())
    )


@contextmanager
def _global_generator(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which OGBench uses, and put it back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
