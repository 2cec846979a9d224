from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.simulation import Policy, SimulatorPool


@pytest.fixture(autouse=True)
def _contrived_environments_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    # Workers inherit the import path, so they find the module by the same name.
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def pool() -> Iterator[SimulatorPool]:
    """Two workers that start with the first evaluation and serve the whole session."""
    with SimulatorPool(2) as shared:
        yield shared


@pytest.fixture
def linear_policy() -> Callable[[int, int], Policy]:
    """Return a fixed policy for an action size and a horizon.

    Its chunk is a function of the observation, repeated with fading force.
    """

    def build(action_size: int, horizon: int) -> Policy:
        weights = np.random.default_rng(0).normal(size=(128, action_size)).astype(np.float32)
        fading = np.linspace(1.0, 0.3, horizon, dtype=np.float32)[:, None]

        def policy(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
            del alive
            first = np.tanh(observations @ weights[: observations.shape[-1]])
            return first[:, :, None, :] * fading

        return policy

    return build
