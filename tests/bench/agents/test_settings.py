"""Every suite's values are settings of the agent they are for."""

from dataclasses import dataclass, fields, replace

import pytest
import torch

from bench.agents import AGENTS, CGQLConfig, FQLConfig, SQAMConfig, TRQAMConfig
from bench.agents.settings import (
    discount_of,
    setting,
    setting_meanings,
    setting_range,
    tried_with,
    unread_settings,
)
from bench.published_settings import published_settings
from bench.suites import SUITES, Domain
from bench.training.setting_checks import check_ranges
from bench.training.settings import parse_overrides, resolve
from qlearn import pessimistic_value

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
        for name_of, value in domain.agents.get(name, {}).items():
            assert getattr(config, name_of) == value
            assert type(value) is type(getattr(entry.config(), name_of)), (name, name_of)


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
        ("humanoidmaze-large-navigate", "rebrac", "acting_noise_std", 0.1),
        ("cube-double-play", "rebrac", "target_every", 2),
        ("scene-play", "rlpd", "cloning_weight", 0.3),
        ("antmaze-giant-navigate", "rlpd", "cloning_weight", 0.01),
        ("cube-double-play", "rql", "cloning_weight", 10.0),
        ("puzzle-4x4-play", "rql", "expectile", 0.9),
    ],
)
def test_published_values(domain: str, agent: str, setting: str, value: float | str) -> None:
    assert published_settings(domain)[agent][setting] == value
    assert SUITES["ogbench50"].domain(domain).agents[agent][setting] == value
    assert SUITES["ogbench50-qam"].domain(domain).agents[agent][setting] == value


def test_every_published_method_has_every_domain_of_the_papers_suite() -> None:
    domains = [domain.name for domain in SUITES["ogbench50"].domains]
    compared = set(published_settings(domains[0]))
    assert {"qam", "fql", "cgql-l mode=mse", "rql"} <= compared
    for domain in domains:
        assert set(published_settings(domain)) == compared


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


def test_data_sets_have_the_sizes_of_the_files() -> None:
    # Transitions of OGBench's standard files in millions, 1 elsewhere; 10M and 100M are in shards.
    sizes = {"humanoidmaze-medium-navigate": 2, "humanoidmaze-large-navigate": 2}
    sizes["cube-triple-play"] = 3
    for name in ("ogbench50-qam", "ogbench50-fql"):
        for domain in SUITES[name].domains:
            expected = sizes.get(domain.name, 1)
            if name == "ogbench50-qam" and domain.name in (
                "cube-quadruple-play",
                "puzzle-4x4-play",
            ):
                expected = 100
            assert domain.transitions == expected * 1_000_000, domain.name
    for suite in SUITES.values():
        for domain in suite.domains:
            assert (domain.shard is not None) is (domain.transitions >= 10_000_000), domain.name


def test_fql_takes_the_minimum_of_two_critics_in_the_large_ant_mazes() -> None:
    least = {"antmaze-large-navigate", "antmaze-giant-navigate"}
    for domain in SUITES["ogbench50-fql"].domains:
        config = resolve(FQLConfig, "fql", domain, {})
        assert config.num_critics == 2
        assert config.rho == (1.0 if domain.name in least else 0.0)
    values = torch.tensor([[[0.3, -2.0]], [[0.7, -5.0]]]).movedim(0, 1)
    torch.testing.assert_close(pessimistic_value(values, 1.0), values.amin(-2))


# Where a default of the published configurations is another than ours. Of their discounts QAM's is
# 0.99 and TRQAM's 0.995.
PUBLISHED_DEFAULTS: dict[str, dict[str, object]] = {
    "qam": {"inverse_temperature": 0.3},
    "qam-e": {"inverse_temperature": 0.3, "edit_scale": 0.0},
    "qam-f": {"inverse_temperature": 0.3, "distill_weight": 0.0},
    "rebrac": {"cloning_weight": 0.0, "target_every": 2, "acting_noise_std": "target_noise"},
    "cgql-l": {"mode": "simple", "linex_tail": "published", "guidance_critic": "online"},
}


@pytest.mark.parametrize("agent", PUBLISHED_DEFAULTS)
def test_a_default_that_is_not_the_published_one_says_so(agent: str) -> None:
    config = AGENTS[agent].config
    assert "unless noted" in (config.__doc__ or "")
    for name, published in PUBLISHED_DEFAULTS[agent].items():
        assert getattr(config(), name) != published
        assert "published" in setting_meanings(config)[name], name


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_can_go_without_a_gradient_clip(agent: str) -> None:
    config = AGENTS[agent].config
    overrides = parse_overrides(config, agent, ["max_gradient_norm=none"])
    assert resolve(config, agent, SUITES["quick"].domains[0], overrides).max_gradient_norm is None


def test_the_table_cannot_be_changed_by_its_readers() -> None:
    published_settings("scene-play")["qam"]["inverse_temperature"] = 0.0
    assert published_settings("scene-play")["qam"]["inverse_temperature"] == 1.0


def test_an_unknown_domain_has_no_published_values() -> None:
    assert published_settings("pointmaze-medium-navigate") == {}


def test_lambda_is_solved_for_from_as_many_samples_as_are_given() -> None:
    check_ranges("trqam", TRQAMConfig(dual="solve", kl_budget=0.4), 5)  # 64 samples serve 2 nats
    with pytest.raises(ValueError, match="got 8, which can resolve at most log 8 nats"):
        check_ranges("trqam", TRQAMConfig(dual="solve", kl_budget=0.4, dual_samples=8), 5)


def test_a_config_says_of_every_setting_what_it_means_and_what_it_may_be() -> None:
    """Numbers that only the config knows: each has a range in which its default lies."""
    for name, entry in AGENTS.items():
        config = entry.config()
        for field in fields(entry.config):
            value = getattr(config, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                assert setting_range(entry.config, field.name).holds(value), (name, field.name)
                assert setting_range(entry.config, field.name).holds(float("nan")) is False
    assert str(setting_range(TRQAMConfig, "dual_ema")) == "above 0, to 1"
    # A default of another agent leaves meaning and range as they are.
    assert setting_range(SQAMConfig, "value_penalty") == setting_range(TRQAMConfig, "value_penalty")
    assert setting_meanings(SQAMConfig)["estimator"] == setting_meanings(TRQAMConfig)["estimator"]
    assert SQAMConfig().value_penalty != TRQAMConfig().value_penalty


@dataclass(frozen=True)
class TheirConfig:
    """Settings of an agent from outside.

    Attributes:
        strength: of something, in
            nats.
    """

    strength: float = -1.0
    share: float = setting(0.5, "of the rest", least=0, most=1)


def test_configs_from_outside_may_leave_that_out() -> None:
    assert setting_meanings(TheirConfig) == {
        "strength": "of something, in nats.",
        "share": "of the rest",
    }
    assert setting_range(TheirConfig, "strength").holds(-1.0)
    assert not setting_range(TheirConfig, "strength").holds(float("inf"))
    assert not setting_range(TheirConfig, "share").holds(1.5)
    assert discount_of(TheirConfig()) == 1.0
    assert unread_settings(TheirConfig()) == {}
    assert discount_of(TRQAMConfig(discount=0.9)) == 0.9


def test_settings_are_tried_narrow_and_with_few_repetitions() -> None:
    tried = replace(TRQAMConfig(dual_samples=500), **tried_with(TRQAMConfig(flow_steps=900)))
    assert (tried.actor_hidden, tried.critic_hidden) == ((1,), (1,))
    # Fewer dual samples are refused for budgets that the given number serves.
    assert (tried.flow_steps, tried.num_action_samples, tried.dual_samples) == (4, 1, 500)
