"""`bench agents`: what it says of every setting."""

import re
from dataclasses import fields

import pytest

from bench.agents import AGENTS
from bench.cli import main
from bench.published_settings import published_settings
from bench.suites import SUITES
from bench.training.settings import resolve


def _entries(text: str) -> dict[str, list[str]]:
    """Setting to its line and the lines below it, without their indentation."""
    blocks = re.findall(r"^(\w+) = (.*(?:\n    .*)*)", text, re.MULTILINE)
    return {name: [line.strip() for line in block.splitlines()] for name, block in blocks}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_setting_has_default_values_and_meaning(
    agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["agents", agent]) == 0
    entries = _entries(capsys.readouterr().out)
    assert list(entries) == [field.name for field in fields(AGENTS[agent].config)]
    for name, (head, meaning, *_) in entries.items():
        assert re.fullmatch(r"\S+  \[.+\]", head), (name, head)
        assert len(meaning.split()) > 1, name


def test_choices_ranges_and_the_values_of_suites(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "trqam"]) == 0
    entries = _entries(capsys.readouterr().out)
    assert entries["dual"][0] == "descend  [descend, relative, solve]"
    assert entries["discount"][0] == "0.995  [0 to 1]"
    assert entries["num_action_samples"][0] == "1  [1 to 10000]"
    assert entries["rho"][0] == "0.5  [number]"
    assert "quick: 0.4" in entries["kl_budget"]
    assert "ogbench50: 0.5 (humanoidmaze-medium-navigate, cube-triple-play)" in entries["kl_budget"]
    assert main(["agents", "qam"]) == 0
    temperatures = " ".join(_entries(capsys.readouterr().out)["inverse_temperature"])
    value = published_settings("puzzle-4x4-play")["qam"]["inverse_temperature"]
    assert f"{value} (puzzle-4x4-play) ogbench50-qam:" in temperatures


def test_values_that_go_with_a_choice_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents", "cgql-l"]) == 0
    entries = {k: " ".join(v) for k, v in _entries(capsys.readouterr().out).items()}
    config = AGENTS["cgql-l"].config
    for suite in SUITES.values():
        for domain in suite.domains:
            usual = resolve(config, "cgql-l", domain, {})
            for mode in ("mse", "simple"):
                chosen = resolve(config, "cgql-l", domain, {"mode": mode})
                for name, text in entries.items():
                    value = getattr(chosen, name)
                    line = text.partition(f"{suite.name}, with mode={mode}: ")[2]
                    line = re.split(r" \S+: | \S+, with ", line)[0]
                    said = [
                        number
                        for number, where in re.findall(r"([^\s;]+)(?: \(([^)]+)\))?", line)
                        if not where or domain.name in where.split(", ")
                    ]
                    departs = name != "mode" and value != getattr(usual, name)
                    assert said == ([str(value)] if departs else []), (suite.name, domain.name)
    assert "ogbench50, with mode=mse: " in entries["noisy_weight"]
    assert "ogbench50, with mode=simple: " in entries["guidance"]
    assert "with" not in entries["mode"].split("]")[1]


def test_the_list_and_an_unknown_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in AGENTS)
    assert main(["agents", "trqma"]) == 2
    assert "perhaps you meant trqam" in capsys.readouterr().err
