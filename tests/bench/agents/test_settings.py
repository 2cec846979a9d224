"""Every suite's values are settings of the agent they are for."""

import pytest

from bench.agents import AGENTS, CGQLConfig
from bench.published_settings import published_settings
from bench.suites import SUITES, Domain
from bench.training.settings import resolve

DOMAINS = [
    pytest.param(domain, id=f"{suite.name}:{domain.name}")
    for suite in SUITES.values()
    for domain in suite.domains
]


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_agent_has_settings_on_every_domain(domain: Domain) -> None:
    assert {name.partition(" ")[0] for name in domain.agents} <= set(AGENTS)
    for name, entry in AGENTS.items():
        config = resolve(entry.config, name, domain, {})
        for setting, value in domain.agents.get(name, {}).items():
            assert getattr(config, setting) == value
            assert type(value) is type(getattr(entry.config(), setting)), (name, setting)


@pytest.mark.parametrize(
    ("domain", "agent", "setting", "value"),
    [
        ("puzzle-4x4-play", "qam", "inverse_temperature", 30.0),
        ("puzzle-4x4-play", "qam-e", "edit_scale", 0.9),
        ("cube-triple-play", "qam-f", "distill_weight", 300.0),
        ("scene-play", "qam-f", "distill_weight", 300.0),
        ("puzzle-4x4-play", "fql", "distill_weight", 1.0),
        ("humanoidmaze-medium-navigate", "ifql", "expectile", 0.7),
        ("cube-quadruple-play", "dsrl", "noise_scale", 1.4),
        ("humanoidmaze-large-navigate", "cgql-l", "noisy_weight", 0.1),
        ("scene-play", "cgql-l", "mode", "linex"),
        ("humanoidmaze-large-navigate", "rebrac", "target_noise", 0.1),
    ],
)
def test_published_values(domain: str, agent: str, setting: str, value: float | str) -> None:
    assert published_settings(domain)[agent][setting] == value
    assert SUITES["ogbench50"].domain(domain).agents[agent][setting] == value
    assert SUITES["ogbench50-qam"].domain(domain).agents[agent][setting] == value


def test_every_published_method_has_every_domain_of_the_papers_suite() -> None:
    compared = {"qam", "qam-e", "qam-f", "fql", "ifql", "dsrl", "cgql-l", "rebrac"}
    compared |= {"cgql-l mode=simple", "cgql-l mode=mse"}
    for domain in SUITES["ogbench50"].domains:
        assert set(published_settings(domain.name)) == compared


@pytest.mark.parametrize(
    ("domain", "overrides", "guidance", "noisy_weight"),
    [
        ("puzzle-4x4-play", {}, 1.0, 0.001),
        ("puzzle-4x4-play", {"mode": "simple"}, 0.1, 0.001),
        ("puzzle-4x4-play", {"mode": "mse"}, 1.0, 0.001),
        ("puzzle-3x3-play", {"mode": "linex"}, 0.1, 0.001),
        ("puzzle-3x3-play", {"mode": "mse"}, 0.1, 0.1),
        ("puzzle-3x3-play", {"mode": "mse", "noisy_weight": 0.5}, 0.1, 0.5),
        ("humanoidmaze-large-navigate", {"mode": "simple"}, 0.01, 0.1),
    ],
)
def test_a_mode_of_cgql_brings_its_published_values(
    domain: str, overrides: dict[str, str | float], guidance: float, noisy_weight: float
) -> None:
    for suite in ("ogbench50", "ogbench50-qam"):
        found = resolve(CGQLConfig, "cgql-l", SUITES[suite].domain(domain), overrides)
        assert (found.guidance, found.noisy_weight) == (guidance, noisy_weight)
        assert (found.mode, found.inverse_temperature) == (overrides.get("mode", "linex"), 10.0)


def test_a_suites_own_values_win() -> None:
    assert published_settings("scene-play")["fql"]["distill_weight"] == 300.0
    assert published_settings("puzzle-3x3-play")["fql"]["distill_weight"] == 300.0
    domain = SUITES["ogbench50-fql"].domain("puzzle-3x3-play")
    assert domain.agents["fql"]["distill_weight"] == 1000.0
    assert SUITES["ogbench50"].domain("cube-triple-play").agents["trqam"]["kl_budget"] == 0.5


def test_the_table_cannot_be_changed_by_its_readers() -> None:
    published_settings("scene-play")["qam"]["inverse_temperature"] = 0.0
    assert published_settings("scene-play")["qam"]["inverse_temperature"] == 1.0


def test_an_unknown_domain_has_no_published_values() -> None:
    assert published_settings("pointmaze-medium-navigate") == {}
