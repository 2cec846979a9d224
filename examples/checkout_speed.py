"""Updates per second of TRQAM in another checkout of this project, the last word it prints.

A peer for `bench speed --against`, so that a change and the state before it stand in one table of
one run; it uses only what every version has:

    git worktree add /tmp/before <commit>
    uv run bench speed --threads 1 --clock cpu --against \
        "env PYTHONPATH=$(ls -d /tmp/before/packages/*/src | paste -sd:) \
         python examples/checkout_speed.py --width 512 --precision float32 --clock cpu"
"""

import argparse
import statistics
import time

import torch

from bench.agents import AGENTS, Problem
from bench.agents.learning import update_on
from qlearn import ChunkBatch, RandomStreams

OBSERVATION, ACTION, HORIZON = 28, 5, 5  # of `bench speed`


def main() -> None:
    parser = argparse.ArgumentParser(description="updates per second of TRQAM")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = time.process_time if given.clock == "cpu" else time.perf_counter
    streams = RandomStreams([0], torch.device("cpu"))
    hidden = (given.width,) * 4
    entry = AGENTS["trqam"]
    config = entry.config(actor_hidden=hidden, critic_hidden=hidden)
    agent = entry.agent(config, Problem(OBSERVATION, ACTION, HORIZON), streams)
    size = given.batch
    batch = ChunkBatch(
        streams.normal(size, OBSERVATION),
        streams.uniform(size, ACTION * HORIZON),
        streams.uniform(size),
        torch.ones(1, size),
        torch.ones(1, size),
        streams.normal(size, OBSERVATION),
    )
    seconds = []
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=given.precision == "bfloat16"):
        for _ in range(given.updates + 2):  # the first two warm up
            started = clock()
            update_on(agent, batch, streams)
            seconds.append(clock() - started)
    print("updates per second", 1.0 / statistics.median(seconds[2:]))


if __name__ == "__main__":
    main()
