"""What a domain's environment says of its cost: sizes, episode length, steps per second."""

import time
from dataclasses import dataclass

import numpy as np

from bench.agents import Problem
from bench.simulation import make
from bench.suites import Domain

__all__ = ["DomainSizes", "domain_sizes"]

_AT_MOST = 400
"""Steps of the simulator in one measurement."""


@dataclass(frozen=True, slots=True)
class DomainSizes:
    """One domain's environment.

    Attributes:
        problem: sizes of the networks' inputs and outputs.
        episode_steps: at which an episode is cut.
        steps_per_s: of one environment on one core, measured here and now in processor time.
    """

    problem: Problem
    episode_steps: int
    steps_per_s: float


def domain_sizes(domain: Domain) -> DomainSizes:
    """Make the environment of a domain's first task and step it with random actions."""
    environment = make(domain.task_name(domain.tasks[0]))
    try:
        steps = environment.max_episode_steps
        assert steps is not None, "the tasks of suites end"
        size = environment.action_low.size
        actions = np.random.default_rng(0).uniform(-1.0, 1.0, (_AT_MOST, size))
        environment.reset(0)
        done, started = 0, time.process_time()
        for action in actions.astype(np.float32):
            _, _, terminated, truncated, _ = environment.step(action)
            done += 1
            if terminated or truncated:
                break
        rate = done / (time.process_time() - started)
        problem = Problem(environment.observation_shape[0], size, domain.horizon)
        return DomainSizes(problem, steps, rate)
    finally:
        environment.close()
