"""Operations of an update, counted on small networks and scaled."""

import pytest

from bench.agents import AGENTS
from bench.suites import SUITES
from bench.training.cost import _counted, update_flops
from bench.training.domain_sizes import domain_sizes
from bench.training.settings import resolve


@pytest.mark.parametrize("agent", AGENTS)
def test_scaled_counts_are_those_of_the_network_itself(agent: str) -> None:
    domain = SUITES["quick"].domains[0]
    config = resolve(AGENTS[agent].config, agent, domain, {})
    problem = domain_sizes(domain).problem
    assert update_flops(agent, config, problem, 8) == _counted(agent, config, problem)
    assert update_flops(agent, config, problem, 80) == 10 * _counted(agent, config, problem)
