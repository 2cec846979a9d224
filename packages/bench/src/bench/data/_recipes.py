"""The recipes by which OGBench's data were collected, as numbers.

Facts from OGBench (arXiv 2410.20092, appendix on datasets) and its published generation commands.
"""

import difflib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from bench.data._names import DatasetName

Goals = Literal["navigate", "stitch", "explore"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one dataset is collected.

    Attributes:
        collector: which policy acts: `manipulation` (OGBench's plan oracles follow a noisy plan to
            one random target after the other), `noisy manipulation` (its Markov oracles do, with
            noise on every action), `maze` (a point follows the shortest path to a goal), `walker`
            (an expert walks along that path) or `random` (uniformly random actions; published by
            nobody).
        episodes: training episodes of the published set. A tenth as many validate.
        rows: rows an episode has, its final state included: rows - 1 transitions.
        noise: standard deviation of the action noise (manipulation: relative to the largest
            action and correlated in time, or, where it is noisy, the largest one, drawn anew for
            each episode; maze: Gaussian, then clipped to [-1, 1]).
        stacking: range of the probability, drawn anew for each episode, that a cube's target
            lies on another cube.
        goals: of `maze` and `walker`: `navigate`, one random goal after the other; `stitch`, one
            that is four cells away; `explore`, none, but a random direction every ten steps.
        random_actions: share of uniformly random actions in noisy manipulation.
        walker: the body, for `walker` and `random`.
        expert: fingerprint of the expert that walks; empty until one is chosen.
    """

    collector: Literal["manipulation", "noisy manipulation", "maze", "walker", "random"]
    episodes: int = 1000
    rows: int = 1001
    noise: float = 0.1
    stacking: tuple[float, float] = (0.5, 0.5)
    walker: str = ""
    expert: str = ""
    goals: Goals = "navigate"
    random_actions: float = 0.0

    def settings(self) -> dict[str, Any]:
        """All that decides the data, as a record has it; what a collector has no use for is not."""
        settings = json.loads(json.dumps(asdict(self)))
        usual = {"walker": "", "expert": "", "goals": "navigate", "random_actions": 0.0}
        return {k: v for k, v in settings.items() if k not in usual or v != usual[k]}

    @property
    def transitions(self) -> int:
        """Transitions of the published training set."""
        return self.episodes * (self.rows - 1)


_STITCH = Recipe("maze", episodes=5000, rows=201, goals="stitch")
_NOISY = Recipe("noisy manipulation", random_actions=0.1)
_EXPLORE = Recipe("maze", episodes=10_000, rows=501, noise=1.0, goals="explore")

RECIPES: dict[str, Recipe] = {
    "cube-single-play": Recipe("manipulation", stacking=(0.0, 0.0)),
    "cube-double-play": Recipe("manipulation", stacking=(0.0, 0.25)),
    "cube-triple-play": Recipe("manipulation", episodes=3000, stacking=(0.05, 0.35)),
    "cube-quadruple-play": Recipe("manipulation", episodes=5000, stacking=(0.1, 0.5)),
    "scene-play": Recipe("manipulation"),
    "puzzle-3x3-play": Recipe("manipulation"),
    "puzzle-4x4-play": Recipe("manipulation"),
    "puzzle-4x5-play": Recipe("manipulation", episodes=3000),
    "puzzle-4x6-play": Recipe("manipulation", episodes=5000),
    "cube-single-noisy": replace(_NOISY, stacking=(0.0, 0.0)),
    "cube-double-noisy": replace(_NOISY, stacking=(0.0, 0.25)),
    "cube-triple-noisy": replace(_NOISY, episodes=3000, stacking=(0.05, 0.35)),
    "cube-quadruple-noisy": replace(_NOISY, episodes=5000, stacking=(0.1, 0.5)),
    "scene-noisy": _NOISY,
    "puzzle-3x3-noisy": replace(_NOISY, random_actions=0.2),
    "puzzle-4x4-noisy": replace(_NOISY, random_actions=0.2),
    "puzzle-4x5-noisy": replace(_NOISY, random_actions=0.2, episodes=3000),
    "puzzle-4x6-noisy": replace(_NOISY, random_actions=0.2, episodes=5000),
    "pointmaze-medium-navigate": Recipe("maze", noise=0.5),
    "pointmaze-large-navigate": Recipe("maze", noise=0.5),
    "pointmaze-giant-navigate": Recipe("maze", episodes=500, rows=2001, noise=0.5),
    "pointmaze-teleport-navigate": Recipe("maze", noise=0.5),
    **{
        f"pointmaze-{size}-stitch": replace(_STITCH, noise=0.5)
        for size in ("medium", "large", "giant", "teleport")
    },
    # Published of ants only.
    **{f"pointmaze-{size}-explore": _EXPLORE for size in ("medium", "large", "teleport")},
    "antmaze-medium-navigate": Recipe("walker", noise=0.2, walker="ant"),
    "antmaze-large-navigate": Recipe("walker", noise=0.2, walker="ant"),
    "antmaze-giant-navigate": Recipe("walker", episodes=500, rows=2001, noise=0.2, walker="ant"),
    "antmaze-teleport-navigate": Recipe("walker", noise=0.2, walker="ant"),
    **{
        f"antmaze-{size}-stitch": replace(_STITCH, collector="walker", noise=0.2, walker="ant")
        for size in ("medium", "large", "giant", "teleport")
    },
    **{
        f"antmaze-{size}-explore": replace(_EXPLORE, collector="walker", walker="ant")
        for size in ("medium", "large", "teleport")
    },
    "humanoidmaze-medium-navigate": Recipe("walker", rows=2001, noise=0.2, walker="humanoid"),
    "humanoidmaze-large-navigate": Recipe("walker", rows=2001, noise=0.2, walker="humanoid"),
    "humanoidmaze-giant-navigate": Recipe(
        "walker", episodes=500, rows=4001, noise=0.2, walker="humanoid"
    ),
    **{
        f"humanoidmaze-{size}-stitch": replace(
            _STITCH, collector="walker", rows=401, noise=0.2, walker="humanoid", episodes=episodes
        )
        for size, episodes in (("medium", 5000), ("large", 5000), ("giant", 10_000))
    },
}
"""Recipes of the datasets that can be made here, by dataset name without size and version."""


def recipe_for(name: DatasetName) -> Recipe:
    """The recipe of a dataset.

    Raises:
        ValueError: if the dataset cannot be made here; the message names the nearest that can.
    """
    recipe = RECIPES.get(name.stem)
    if recipe is not None:
        return recipe
    near = difflib.get_close_matches(name.stem, RECIPES, n=3, cutoff=0.6)
    hint = f"; near it: {', '.join(near)}" if near else f"; known: {', '.join(RECIPES)}"
    raise ValueError(f"no recipe makes '{name}' (no scripted policy collects it){hint}")


def makeable_kinds(environment: str) -> tuple[str, ...]:
    """Kinds of data that can be made here of an environment such as `pointmaze-medium`."""
    stems = (stem.rpartition("-") for stem in RECIPES)
    return tuple(kind for name, _, kind in stems if name == environment)
