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
        "mode": mode,
        "threads": "8",
        "gflops": gflops,
        "date": "2026-11-21",
    }
    for width, replicas, mode, gflops in (
        ("512", "1", "eager", "1e4"),
        ("512", "40", "eager", "1e5"),
        ("512", "40", "captured", "3e5"),
        ("1024", "40", "eager", "2e5"),
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
    assert found.basis == "measured 2026-11-21 on NVIDIA H200, eager, 40 runs in a pack"


@pytest.mark.parametrize(
    ("width", "rate", "origin"),
    [(900, 2e14, "1024"), (2048, 2e14, "1024"), (256, 1e14, "512"), (640, 1e14, "512")],
)
def test_another_width_s_rate_says_so(width: int, rate: float, origin: str) -> None:
    found = device_rate(RATES, "h200", "trqam", width, "tf32")
    assert found.flops_per_s == rate
    assert found.basis.startswith(f"EXTRAPOLATED from width {origin}, measured 2026-11-21")
    assert not found.measured


@pytest.mark.parametrize("width", [255, 2049, 16])
def test_a_rate_is_carried_no_further_than_twice_the_width(width: int) -> None:
    message = rf"(?s)near width {width}; there is 512, 1024\. .*--widths {width} "
    with pytest.raises(ValueError, match=message):
        device_rate(RATES, "h200", "trqam", width, "tf32")
    estimate = device_rate(RATES, "h200", "trqam", width, "tf32", utilisation=0.1)
    assert estimate.basis.startswith("ESTIMATE")


def test_modes_of_execution_are_never_mixed() -> None:
    found = device_rate(RATES, "h200", "trqam", 512, "tf32", "captured")
    assert found.flops_per_s == 3e14
    assert ", captured, " in found.basis
    with pytest.raises(ValueError, match=r"of trqam, compiled, on 'h200'"):
        device_rate(RATES, "h200", "trqam", 512, "tf32", "compiled")


def test_rates_of_a_cpu_are_of_its_fewest_threads() -> None:
    rows = [
        {**RATES[0], "device": "cpu", "threads": threads, "processes": processes, "gflops": gflops}
        for threads, processes, gflops in (("2", "2", "9"), ("1", "1", "2"), ("1", "2", "5"))
    ]
    found = device_rate(rows, "cpu", "trqam", 512, "tf32")
    assert (found.flops_per_s, found.threads) == (2e9, 1)
    assert "on cpu, one thread, eager, one run" in found.basis
    found = device_rate(rows[:1], "cpu", "trqam", 512, "tf32")
    assert (found.threads, "4 threads" in found.basis) == (4, True)


def test_threads_are_chosen_at_the_nearest_width() -> None:
    rows = [
        {**RATES[0], "device": "cpu", "width": width, "threads": threads, "gflops": gflops}
        for width, threads, gflops in (("128", "1", "2"), ("512", "4", "9"), ("512", "2", "5"))
    ]
    wide = device_rate(rows, "cpu", "trqam", 512, "tf32")
    assert (wide.flops_per_s, wide.threads, wide.measured) == (5e9, 2, True)
    narrow = device_rate(rows, "cpu", "trqam", 128, "tf32")
    assert (narrow.flops_per_s, narrow.threads, narrow.measured) == (2e9, 1, True)


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
    with pytest.raises(ValueError, match=r"lacks device, replicas, precision, mode, threads"):
        read_rates(tmp_path / "wrong.csv")


def test_the_command_prints_hours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes(domain: Domain, *, measure: bool) -> DomainSizes:
        return SIZES

    monkeypatch.setattr("bench.api.cost.domain_sizes", sizes)
    assert main(["plan", "--suite", "quick", "--seeds", "2", "--devices", "4"]) == 0
    out = capsys.readouterr().out
    assert "width 128: measured" in out
    assert "4 x cpu (one thread): " in out
    assert "core hours at most" in out
    assert main(["plan", "--suite", "quick", "--device", "h200"]) == 2
    estimate = ["plan", "--suite", "quick", "--device", "h200", "--utilisation", "0.3"]
    assert main(estimate) == 0
    assert "ESTIMATE: 30 %" in capsys.readouterr().out


def test_hours_name_the_threads_only_where_all_widths_share_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.api.cost.domain_sizes", lambda domain, measure: SIZES)
    row = {**RATES[0], "device": "cpu", "precision": "float32"}
    rows = [{**row, "width": "512", "threads": "1"}, {**row, "width": "1024", "threads": "2"}]
    table = tmp_path / "rates.csv"
    table.write_text("\n".join([",".join(row), *(",".join(r.values()) for r in rows)]))
    assert main(["plan", "--rates", str(table)]) == 0
    out = capsys.readouterr().out
    assert "width 512: measured 2026-11-21 on cpu, one thread" in out
    assert "width 1024: measured 2026-11-21 on cpu, 2 threads" in out
    assert "8 x cpu (threads as above): " in out


@pytest.mark.parametrize("columns", [80, 200])
def test_the_table_is_legible_on_any_terminal(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.api.cost.domain_sizes", lambda domain, measure: SIZES)
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if line.startswith("humanoidmaze-medium-navigate"))
    assert max(map(len, lines[: lines.index(row)])) <= 80
    cells = row.split()
    assert len(cells) == 8
    for cell in cells[3:]:
        assert len(cell.strip("~0,.").replace(",", "").replace(".", "").lstrip("0")) <= 3
    (wide,) = (line.split() for line in lines if line.startswith("cube-triple-play"))
    assert wide[5].startswith("~")
    assert any(line.startswith("width 1024: EXTRAPOLATED from width 512") for line in lines)
    assert any(line.startswith("8 x cpu (one thread): ~") for line in lines)


def test_no_device_is_refused_before_anything_is_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sizes(domain: Domain, *, measure: bool) -> DomainSizes:
        raise AssertionError("timed")

    monkeypatch.setattr("bench.api.cost.domain_sizes", sizes)
    for option in ("--devices", "--cores", "--seeds"):
        assert main(["plan", option, "0"]) == 2
        assert f"{option[2:]} must be at least 1, got 0" in capsys.readouterr().err
