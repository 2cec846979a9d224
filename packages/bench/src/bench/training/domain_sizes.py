"""What a domain's environment says of its cost: sizes, episode length, steps per second."""

import csv
import time
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

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
        steps_per_s: of one environment on one core, in processor time.
        measured: whether here and now; else on one core of an AMD EPYC with AVX2, in a table.
    """

    problem: Problem
    episode_steps: int
    steps_per_s: float
    measured: bool = True


def domain_sizes(domain: Domain, *, measure: bool = False) -> DomainSizes:
    """Sizes and speed of a domain's environment.

    Args:
        domain: of a suite, or of the user's own environment.
        measure: make the environment of its first task and step it with random actions, which takes
            seconds; otherwise only environments that are not in the table are.
    """
    if not measure and domain.source.published and (row := _stored().get(domain.name)):
        problem = Problem(int(row["observation_dim"]), int(row["action_dim"]), domain.chunk_length)
        rate = float(row["steps_per_s"])
        return DomainSizes(problem, int(row["episode_steps"]), rate, measured=False)
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
        problem = Problem(environment.observation_shape[0], size, domain.chunk_length)
        return DomainSizes(problem, steps, rate)
    finally:
        environment.close()


@cache
def _stored() -> dict[str, dict[str, str]]:
    """Rows of the table beside this file, by name of the domain."""
    text = (files("bench.training") / "domain_sizes.csv").read_text(encoding="utf-8")
    return {row["domain"]: row for row in csv.DictReader(text.splitlines())}
