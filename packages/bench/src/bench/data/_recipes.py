"""The recipes by which OGBench's data were collected, as numbers.

Facts from OGBench (arXiv 2410.20092, appendix on datasets) and its published generation commands.
"""

import difflib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bench.data._names import DatasetName


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one dataset is collected.

    Attributes:
        collector: which policy acts: `manipulation` (OGBench's plan oracles follow a noisy plan to
            one random target after the other), `maze` (a point follows the shortest path to one
            random goal after the other), `walker` (an expert walks along that path) or `random`
            (uniformly random actions; published by nobody).
        episodes: training episodes of the published set. A tenth as many validate.
        rows: rows an episode has, its final state included: rows - 1 transitions.
        noise: standard deviation of the action noise (manipulation: relative to the largest
            action and correlated in time; maze: Gaussian, then clipped to [-1, 1]).
        stacking: range of the probability, drawn anew for each episode, that a cube's target
            lies on another cube.
        walker: the body, for `walker` and `random`.
        expert: fingerprint of the expert that walks; empty until one is chosen.
    """

    collector: Literal["manipulation", "maze", "walker", "random"]
    episodes: int = 1000
    rows: int = 1001
    noise: float = 0.1
    stacking: tuple[float, float] = (0.5, 0.5)
    walker: str = ""
    expert: str = ""

    def settings(self) -> dict[str, Any]:
        """All that decides the data, as a record has it; what a collector has no use for is not."""
        settings = json.loads(json.dumps(asdict(self)))
        return {k: v for k, v in settings.items() if k not in ("walker", "expert") or v}

    @property
    def transitions(self) -> int:
        """Transitions of the published training set."""
        return self.episodes * (self.rows - 1)


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
    "pointmaze-medium-navigate": Recipe("maze", noise=0.5),
    "pointmaze-large-navigate": Recipe("maze", noise=0.5),
    "pointmaze-giant-navigate": Recipe("maze", episodes=500, rows=2001, noise=0.5),
    "pointmaze-teleport-navigate": Recipe("maze", noise=0.5),
    "antmaze-medium-navigate": Recipe("walker", noise=0.2, walker="ant"),
    "antmaze-large-navigate": Recipe("walker", noise=0.2, walker="ant"),
    "antmaze-giant-navigate": Recipe("walker", episodes=500, rows=2001, noise=0.2, walker="ant"),
    "antmaze-teleport-navigate": Recipe("walker", noise=0.2, walker="ant"),
    "humanoidmaze-medium-navigate": Recipe("walker", rows=2001, noise=0.2, walker="humanoid"),
    "humanoidmaze-large-navigate": Recipe("walker", rows=2001, noise=0.2, walker="humanoid"),
    "humanoidmaze-giant-navigate": Recipe(
        "walker", episodes=500, rows=4001, noise=0.2, walker="humanoid"
    ),
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
