"""Stored loss traces: a change of an agent's code that should not change its numbers does not.

`TRACES=exact pytest tests/bench/agents/test_traces.py` asks for equal bits, on the machine that
stored them; `TRACES=rewrite` stores new ones, for a change that is meant to change numbers.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.agents import AGENTS, draw
from qlearn import RandomStreams

from .small_agents import ROWS, batch_of, build

TRACES = Path(__file__).parent / "traces"
SEEDS = [3, 8]
UPDATES = 5
# Without vector units the same processor gives numbers that are up to 1.8e-6 apart from these.
RELATIVE = 1e-5

CASES: dict[str, tuple[str, dict[str, Any]]] = {name: (name, {}) for name in AGENTS} | {
    "trqam--kernel-follmer": ("trqam", {"kernel": "follmer"}),
    "bc--diffusion": ("bc", {"prediction": "noise"}),
    "trqam--diffusion": ("trqam", {"prediction": "noise"}),
    "trqam--dual-solve": ("trqam", {"dual": "solve", "kl_budget": 0.1}),
}


def trace(agent_name: str, settings: dict[str, Any]) -> dict[str, list[list[float]]]:
    """Every metric of every update, per replica; the numbers are float32, so JSON keeps them."""
    agent = build(agent_name, SEEDS, **settings)
    streams = RandomStreams(SEEDS).spawn("batches")
    metrics: dict[str, list[list[float]]] = {}
    for _ in range(UPDATES):
        found = agent.update(batch_of(streams), draw(streams, agent.noise(ROWS)))
        for name, value in found.items():
            assert value.dtype == torch.float32, name
            metrics.setdefault(name, []).append(value.tolist())
    return dict(sorted(metrics.items()))


@pytest.mark.parametrize("case", CASES)
def test_the_losses_are_the_stored_ones(case: str) -> None:
    mode = os.environ.get("TRACES", "compare")
    found = trace(*CASES[case])
    file = TRACES / f"{case}.json"
    if mode == "rewrite":
        file.parent.mkdir(exist_ok=True)
        lines = (f'  "{name}": {json.dumps(values)}' for name, values in found.items())
        file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        pytest.skip(f"{file.name} was rewritten")
    stored = json.loads(file.read_text(encoding="utf-8"))
    if mode == "exact":
        assert found == stored
    else:
        ours, theirs = (
            {name: torch.tensor(values) for name, values in each.items()}
            for each in (found, stored)
        )
        torch.testing.assert_close(ours, theirs, rtol=RELATIVE, atol=1e-9)


def test_every_trace_has_its_agent() -> None:
    assert {path.stem for path in TRACES.glob("*.json")} == set(CASES)
