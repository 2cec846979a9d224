"""Measure how fast episodes are simulated: ``python -m bench.simulation``.

Prints steps per second of a bare loop over one environment, and of evaluations in this process and
in worker processes. Every episode repeats one random chunk, which costs the policy nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import tyro

from bench.machine import available_cores
from bench.simulation import (
    Evaluation,
    SeededEnv,
    SimulatorPool,
    evaluate,
    make,
)
from bench.storage import package_versions, simulator_label

_BARE_EPISODES = 4


@dataclass(frozen=True)
class Throughput:
    """Steps per second of the simulator, bare and through `bench.simulation.evaluate`."""

    tasks: tuple[str, ...] = (
        "pointmaze-medium-navigate-singletask-task1-v0",
        "cube-single-play-singletask-task1-v0",
    )
    """Tasks to measure."""
    replicas: int = 2
    """Replicas evaluated together."""
    episodes: int = 50
    """Episodes per replica."""
    horizon: int = 5
    """Actions per chunk."""
    steps: int = 1000
    """Steps per episode at most."""
    workers: int | None = None
    """Worker processes; one per core by default."""

    def run(self) -> None:
        """Print one line per task and way of simulating."""
        versions = package_versions()
        print(simulator_label(versions["mujoco"], versions["ogbench"]))
        workers = available_cores() if self.workers is None else self.workers
        for task in self.tasks:
            environment = make(task)
            bare = self._bare(environment)
            print(f"{task}: bare loop {bare:.0f} steps/s")
            for processes in (0, workers):
                with SimulatorPool(processes) as pool:
                    self._evaluate(environment, pool, step_limit=1)  # builds the environments
                    result = self._evaluate(environment, pool, self.steps)
                rate = result.steps / result.seconds
                print(
                    f"  {processes} workers: {result.steps} steps in {result.seconds:.1f} s, "
                    f"{rate:.0f} steps/s, {rate / (bare * max(1, processes)):.2f} of bare per core"
                )

    def _bare(self, environment: SeededEnv) -> float:
        """Return the steps per second of one environment as gymnasium builds it."""
        raw = environment.unseeded
        chunks = self._chunks(environment)[0, :_BARE_EPISODES]
        steps = 0
        clock = time.perf_counter()
        for seed, chunk in enumerate(chunks):
            raw.reset(seed=seed)
            for step in range(self.steps):
                _, _, terminated, truncated, _ = raw.step(chunk[step % self.horizon])
                steps += 1
                if terminated or truncated:
                    break
        return steps / (time.perf_counter() - clock)

    def _evaluate(self, environment: SeededEnv, pool: SimulatorPool, step_limit: int) -> Evaluation:
        chunks = self._chunks(environment)
        return evaluate(
            lambda observations, alive: chunks,
            [environment.task_name] * self.replicas,
            range(self.replicas),
            self.episodes,
            pool=pool,
            step_limit=step_limit,
        )

    def _chunks(self, environment: SeededEnv) -> np.ndarray:
        size = (self.replicas, self.episodes, self.horizon, environment.action_low.size)
        return np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)


if __name__ == "__main__":
    tyro.cli(Throughput).run()
