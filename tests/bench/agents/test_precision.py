"""Training with rounded matrix products follows training without."""

import pytest
import torch

from bench.agents import AGENTS

from .small_agents import build, train

UPDATES = 12


@pytest.mark.parametrize("name", AGENTS)
def test_rounded_products_follow_exact_ones(name: str) -> None:
    exact, rounded = (build(name, [0], learning_rate=1e-2) for _ in range(2))
    start = [parameter.detach().clone() for parameter in exact.parameters()]
    train(exact, [0], UPDATES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        train(rounded, [0], UPDATES)
    pairs = zip(exact.parameters(), rounded.parameters(), start, strict=True)
    apart = moved = 0.0
    for one, other, first in pairs:
        apart += float((one - other).detach().square().sum())
        moved += float((one - first).detach().square().sum())
    assert 0.0 < apart < 0.1**2 * moved
