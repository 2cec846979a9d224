"""Operations of an update, counted on small networks and scaled."""

from dataclasses import replace
from typing import Any

import pytest

from bench.agents import AGENTS, Problem
from bench.suites import SUITES
from bench.training.cost import _COUNTS, _flops, update_flops
from bench.training.settings import resolve

PROBLEM = Problem(7, 3, 2)
# The samples serve this budget, and would not serve the usual one.
VARIANTS = [("trqam", {"dual": "solve", "dual_samples": 4, "kl_budget": 0.05})] + [
    ("trqam", {name: value})
    for name, value in (
        ("estimator", "scalar"), ("kernel", "follmer"), ("trust_region", "external"),
        ("prediction", "noise"), ("value_penalty", 0.3), ("path_kl_samples", 2),
        ("dual_rate", 0.0), ("num_action_samples", 3),
        ("rho", 0.0), ("num_critics", 1), ("actor_layer_norm", True),
    )
]  # fmt: skip


def small(agent: str, **settings: Any) -> Any:
    """An agent's settings in a suite, with layers of different widths."""
    config = resolve(AGENTS[agent].config, agent, SUITES["quick"].domains[0], {})
    smaller = {"actor_hidden": (24, 36), "critic_hidden": (12, 48), "flow_steps": 3}
    known = {name: value for name, value in smaller.items() if hasattr(config, name)}
    return replace(config, **known, **settings)


@pytest.mark.parametrize(
    ("agent", "settings"), [*((agent, {}) for agent in AGENTS), *VARIANTS], ids=str
)
def test_scaled_counts_are_those_of_the_network_itself(
    agent: str, settings: dict[str, Any]
) -> None:
    config = small(agent, **settings)
    own = _flops(agent, config, PROBLEM)
    assert own > 0.0
    assert update_flops(agent, config, PROBLEM, 8) == own
    assert update_flops(agent, config, PROBLEM, 80) == 10 * own


def test_the_domains_of_a_suite_are_counted_as_one() -> None:
    _COUNTS.clear()
    found = set()
    for index, domain in enumerate(SUITES["ogbench50"].domains):
        config = resolve(AGENTS["trqam"].config, "trqam", domain, {})
        few = replace(config, flow_steps=3, num_critics=2)
        found.add(update_flops("trqam", few, Problem(20 + index, 2 + index, 5), 256))
    assert len(found) == 10  # of other sizes
    assert len(_COUNTS) == 8  # four of each: with pessimism and without
