"""Cost of a suite: counted operations over measured rates."""

from pathlib import Path

import pytest

from bench.agents import Problem
from bench.cli import main
from bench.scale import DomainSizes, SuiteCost, device_rate, read_rates, suite_cost
from bench.suites import Domain, suite
from bench.training.cost import update_flops
from bench.training.settings import resolve

QUICK = suite("quick")
SIZES = DomainSizes(Problem(4, 2, 5), 1000, 2000.0)
RATES = [
    {
        "device": "NVIDIA H200",
        "agent": "trqam",
        "width": width,
        "replicas": replicas,
        "precision": "tf32",
        "gflops": gflops,
        "date": "2026-11-21",
    }
    for width, replicas, gflops in (
        ("512", "1", "1e4"),
        ("512", "40", "1e5"),
        ("1024", "40", "2e5"),
    )
]


def cost(seeds: int, rate: float = 1e12, agent: str = "trqam", online: bool = False) -> SuiteCost:
    return suite_cost(QUICK, agent, seeds, lambda d: SIZES, lambda w: rate, online=online)


def test_cost_is_operations_of_all_updates_over_the_rate() -> None:
    from bench.agents import AGENTS

    protocol = QUICK.protocol
    for domain, found in zip(QUICK.domains, cost(3).domains, strict=True):
        each = {
            agent: update_flops(
                agent,
                resolve(AGENTS[agent].config, agent, domain, {}),
                SIZES.problem,
                protocol.batch_size,
            )
            for agent in ("trqam", "bc")
        }
        runs = 3 * len(domain.tasks)
        flops = (
            runs * protocol.offline_steps * each["trqam"] + 3 * protocol.pretrain_steps * each["bc"]
        )
        assert found.runs == runs
        assert found.flops == pytest.approx(flops)
        assert found.device_hours == pytest.approx(flops / 1e12 / 3600)
        evaluations = -(-protocol.offline_steps // protocol.evaluate_every)
        steps = runs * evaluations * protocol.episodes * SIZES.episode_steps
        assert found.simulator_steps == steps
        assert found.core_hours == pytest.approx(steps / 2000 / 3600)


def test_the_online_phase_costs_more_and_cloning_alone_less() -> None:
    offline = cost(1)
    assert cost(1, online=True).device_hours > offline.device_hours
    assert cost(1, online=True).core_hours > offline.core_hours
    assert cost(1, agent="bc").device_hours < offline.device_hours


@pytest.mark.parametrize("devices", [1, 2, 3, 7])
def test_devices_share_the_work_as_evenly_as_whole_seeds_allow(devices: int) -> None:
    total = cost(5)
    longest = max(domain.device_hours / 5 for domain in total.domains)
    hours = total.hours(devices)
    assert total.device_hours / devices <= hours * (1 + 1e-9)
    assert hours <= total.device_hours / devices + longest
    with pytest.raises(ValueError, match="at least one device"):
        total.hours(0)


def test_the_fastest_measured_rate_of_the_nearest_width_is_taken() -> None:
    found = device_rate(RATES, "h200", "trqam", 512, "tf32")
    assert (found.flops_per_s, found.replicas, found.measured) == (1e14, 40, True)
    assert "2026-11-21 on NVIDIA H200, 40 runs" in found.basis
    assert device_rate(RATES, "h200", "trqam", 900, "tf32").flops_per_s == 2e14
    assert "at width 1024" in device_rate(RATES, "h200", "trqam", 900, "tf32").basis


def test_a_device_without_a_measurement_is_refused_or_estimated_and_said_to_be() -> None:
    with pytest.raises(ValueError, match=r"(?s)bench.speed --agents trqam.*--utilisation"):
        device_rate([], "h200", "trqam", 512, "tf32")
    found = device_rate([], "h200", "trqam", 512, "tf32", utilisation=0.2)
    assert found.flops_per_s == pytest.approx(0.2 * 494.5e12)
    assert found.basis.startswith("ESTIMATE: 20 %")
    assert not found.measured
    with pytest.raises(ValueError, match="utilisation must lie"):
        device_rate([], "h200", "trqam", 512, "tf32", utilisation=1.5)
    with pytest.raises(ValueError, match="peaks are known of h200"):
        device_rate([], "abacus", "trqam", 512, "tf32", utilisation=0.5)


def test_the_kept_table_has_this_projects_cpu_and_says_when_and_how() -> None:
    rows = read_rates()
    assert device_rate(rows, "cpu", "trqam", 512, "float32").measured
    assert all(row["date"] and row["machine"] and row["command"] for row in rows)


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.csv").write_text("agent,width\ntrqam,512\n")
    with pytest.raises(ValueError, match=r"lacks device, replicas, precision, gflops"):
        read_rates(tmp_path / "wrong.csv")


def test_the_command_prints_hours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes(domain: Domain) -> DomainSizes:
        return SIZES

    monkeypatch.setattr("bench.scale.domain_sizes", sizes)
    assert main(["plan", "--suite", "quick", "--seeds", "2", "--devices", "4"]) == 0
    out = capsys.readouterr().out
    assert "width 128: measured" in out
    assert "4 x cpu: " in out
    assert "core hours at most" in out
    assert main(["plan", "--suite", "quick", "--device", "h200"]) == 2
    estimate = ["plan", "--suite", "quick", "--device", "h200", "--utilisation", "0.3"]
    assert main(estimate) == 0
    assert "ESTIMATE: 30 %" in capsys.readouterr().out
