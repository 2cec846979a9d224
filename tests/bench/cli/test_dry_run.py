"""A dry run lists what would be done from stored rates: it makes no simulator, no optimiser."""

import json
import subprocess
import sys

import pytest

import bench
from bench.cli import main
from bench.suites import SUITES
from bench.training.domain_sizes import domain_sizes


def test_the_paper_suite_is_listed_without_simulators_or_compiler() -> None:
    code = """
import json, sys
from bench.cli import main
import bench.training.dry_run, bench.training.job, bench.training.options
status = main(["offline", "--suite", "ogbench50", "--dry-run", "--device", "cpu"])
from bench.training.cost import _COUNTS
heavy = [n for n in ("mujoco", "ogbench", "torch._dynamo", "sympy") if n in sys.modules]
print(json.dumps([status, len(_COUNTS), heavy]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *lines, last = done.stdout.splitlines()
    status, counted, heavy = json.loads(last)
    assert status == 0
    assert heavy == []
    # Four times an agent with and without pessimism, not once for every domain.
    assert counted == 12
    text = "\n".join(lines)
    for domain in SUITES["ogbench50"].domains:
        assert f"{domain.name}--trqam--" in text
    assert "at stored rates of one core" in text
    assert "--measure times this machine" in text


def test_every_domain_of_the_suites_has_stored_sizes() -> None:
    for suite in SUITES.values():
        for domain in suite.domains:
            assert not domain_sizes(domain).measured
    for name in ("quick", "quick-manip"):
        domain = SUITES[name].domains[0]
        stored, made = domain_sizes(domain), domain_sizes(domain, measure=True)
        assert made.measured
        assert (stored.problem, stored.episode_steps) == (made.problem, made.episode_steps)
        assert 0.02 < stored.steps_per_s / made.steps_per_s < 50.0


def test_timing_is_done_where_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["offline", "--preset", "smoke", "--dry-run", "--measure"]) == 0
    printed = capsys.readouterr()
    assert "timing matrix products and simulators" in printed.err
    text = " ".join(printed.out.split())
    assert "at rates measured just now" in text
    assert main(["offline", "--preset", "smoke", "--dry-run"]) == 0
    assert "--measure times it" in " ".join(capsys.readouterr().out.split())


def test_the_function_says_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    shown = bench.dry_run("online", suite="quick", preset="smoke", device="cpu", seeds=2)
    packs = shown.packs
    assert packs["pack"].str.contains("--bc--").to_list() == [True, False, False]
    assert packs["runs"].to_list() == [4, 4, 4]
    assert packs["updates"].to_list()[:2] == [20, 20]
    assert all(value > 0.0 for value in packs["pflop"])
    assert shown.settings.keys() == set(packs["pack"])
    shown.show()
    text = capsys.readouterr().out
    assert (
        main(["online", "--preset", "smoke", "--device", "cpu", "--seeds", "2", "--dry-run"]) == 0
    )
    assert capsys.readouterr().out == text
    request = bench.OfflineRequest(preset="smoke", device="cpu", agent=("fql",))
    assert bench.dry_run(request).packs["pack"].to_list()[-1].endswith("--fql--seeds-0")
    with pytest.raises(TypeError, match="no field 'online_steps'"):
        bench.dry_run("offline", online_steps=3)
    with pytest.raises(ValueError, match="expected offline, online, sweep or a request"):
        bench.dry_run("report")  # type: ignore[arg-type]
