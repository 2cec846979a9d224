"""The KL of the endpoints, measured on a trained policy, against the path KL that bounds it."""

import pytest
import torch

from bench.ablation.bandit import Bandit, WarmStart
from bench.agents import draw
from bench.agents.endpoint_kl import endpoint_kl
from flowsde import FollmerKernel, sample_path, velocities_along
from qlearn import RandomStreams
from trustregion import path_kl

ROWS, STEPS = 2_000, 40


@pytest.mark.slow
def test_endpoint_kl_is_inside_path_kl_on_a_trained_policy() -> None:
    start = WarmStart.of(Bandit(), (0, 1), updates=300)
    agent = start.agent(kl_budget=0.5, dual="solve")
    streams = RandomStreams((0, 1))
    for _ in range(600):
        agent.update(start.held(streams), draw(streams, agent.noise(64)))

    fresh = RandomStreams((5, 6))
    observations, noise = fresh.normal(ROWS, 2), fresh.normal(ROWS, 4)
    fine, base = (policy.field(observations) for policy in (agent.fast, agent.target_slow))
    kernel = FollmerKernel(STEPS, scale=0.5)
    with torch.no_grad():
        path = sample_path(kernel, fine, noise, fresh.normal(STEPS, ROWS, 4).movedim(1, 0))
        kl = path_kl(
            kernel, velocities_along(kernel, fine, path), velocities_along(kernel, base, path)
        )
    bound, error = kl.mean(-1), kl.std(-1) / ROWS**0.5
    inside = endpoint_kl(fine, base, noise, STEPS // 2)
    # The process being memoryless, little is lost between the two; before training has come this
    # far, the flow's end is not yet that of the process, and the bound need not hold for it.
    assert bool((inside < bound + 2.0 * error).all())
    assert bool((inside > 0.7 * bound).all())
    assert bool((bound > 0.5).all())
    assert float((error / bound).max()) < 0.03
