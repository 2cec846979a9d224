"""The recipes by which OGBench's data were collected, as numbers.

Facts from OGBench (arXiv 2410.20092, appendix on datasets) and its published generation commands.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from bench.data._names import DatasetName


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one dataset is collected.

    Attributes:
        collector: which scripted policy acts: `manipulation` (OGBench's plan oracles follow a
            noisy plan to one random target after the other) or `maze` (a point follows the
            shortest path to one random goal after the other).
        episodes: training episodes of the published set. A tenth as many validate.
        rows: rows an episode has, its final state included: rows - 1 transitions.
        noise: standard deviation of the action noise (manipulation: relative to the largest
            action and correlated in time; maze: Gaussian, then clipped to [-1, 1]).
        stacking: range of the probability, drawn anew for each episode, that a cube's target
            lies on another cube.
    """

    collector: Literal["manipulation", "maze"]
    episodes: int = 1000
    rows: int = 1001
    noise: float = 0.1
    stacking: tuple[float, float] = (0.5, 0.5)

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
