"""`bench ablate internal-vs-external` and `kernels`: what is run, and what the tables say."""

from pathlib import Path
from typing import get_args

import polars as pl
import pytest

from bench.ablation.points import outcomes, plan_points
from bench.ablation.settings import families, kernel_grid
from bench.agents.kernels import KernelName
from bench.cli import main
from bench.data import generate
from bench.experiment import KernelsRequest, OfflineRequest
from bench.results import scan_training

DOMAIN = "pointmaze-medium-navigate"
SMOKE = OfflineRequest(suite="quick", preset="smoke", tasks=(1,))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    generate(f"{DOMAIN}-5k-v0", place, transitions=5_000, processes=1)
    return place


def command(name: str, *values: str, data_dir: Path, out: Path) -> list[str]:
    suite = ["--suite", "quick", "--preset", "smoke", "--tasks", "1"]
    places = ["--data-dir", str(data_dir), "--out", str(out)]
    return ["ablate", name, *values, *suite, *places]


def test_every_point_has_its_settings_and_one_clone_serves_all() -> None:
    plan = plan_points(SMOKE, "internal-vs-external", families((0.3,), (2.0,), (0.5,), 0.1))
    assert len(plan.pretraining) == 1
    assert all(plan.pretraining_of(pack) == plan.pretraining[:1] for pack in plan.packs)
    assert str(plan.directory) == "runs/quick-smoke-ablate-internal-vs-external"
    internal, external, fixed = (plan.configs[pack.name] for pack in plan.packs)
    assert (internal.trust_region, internal.kl_budget, internal.dual_rate) == (
        "internal",
        0.3,
        0.01,
    )
    assert (external.trust_region, external.temperature, external.dual_rate) == ("external", 0.1, 0)
    assert external.lambda_scale * external.lambda_initial == 2.0
    assert (fixed.trust_region, fixed.dual_rate) == ("internal", 0)
    assert fixed.lambda_scale * fixed.lambda_initial == 0.5
    assert len({pack.name for pack in plan.packs}) == 3


def test_impossible_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="--budgets must be positive"):
        families((0.0,), (), (), 0.1)
    with pytest.raises(ValueError, match="--temperature must be positive"):
        families((1.0,), (), (), float("nan"))
    with pytest.raises(ValueError, match="--flow-steps must be at least 1"):
        kernel_grid(("follmer",), (0,), 8)
    with pytest.raises(ValueError, match="trqam"):
        plan_points(OfflineRequest(agent=("fql",)), "kernels", kernel_grid(("follmer",), (5,), 8))
    with pytest.raises(ValueError, match="kl_budget"):
        plan_points(OfflineRequest(kl_budget=1.0), "x", families((0.3,), (), (), 0.1))
    with pytest.raises(ValueError, match="flow_steps"):
        plan_points(OfflineRequest(set=("flow-steps=3",)), "x", kernel_grid(("follmer",), (5,), 8))
    with pytest.raises(ValueError, match="at least one"):
        plan_points(SMOKE, "kernels", [])
    with pytest.raises(ValueError, match=r"at kernel=euler, .*: kernel must be one of"):
        plan_points(SMOKE, "kernels", kernel_grid(("euler",), (5,), 8))


@pytest.mark.slow
def test_internal_against_external(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "run"
    values = ["--budgets", "0.3", "--coefficients", "3", "--lambdas", "0.5", "1"]
    assert main(command("internal-vs-external", *values, data_dir=data_dir, out=out)) == 0
    table = pl.read_csv(out / "internal-vs-external.csv")
    assert sorted(table["kind"]) == [
        "external: KL penalty",
        "fixed lambda",
        "fixed lambda",
        "internal: budget",
    ]
    assert table["path_kl"].min() > 0.0  # type: ignore[operator]
    assert table["success"].null_count() == 0
    fixed = table.filter(pl.col("variant").str.contains("lambda-initial=0.5"))
    assert fixed["lambda"].item() == pytest.approx(0.5)
    assert (out / "internal-vs-external.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "pretrained").iterdir())) == 1


@pytest.mark.slow
def test_kernels(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "run"
    assert set(KernelsRequest().kernels) == set(get_args(KernelName))
    values = ["--kernels", "memoryless_euler", "follmer", "--flow-steps", "3", "5"]
    values += ["--endpoint-samples", "8"]
    assert main(command("kernels", *values, data_dir=data_dir, out=out)) == 0
    table = pl.read_csv(out / "kernels.csv")
    points = [("follmer", 3), ("follmer", 5), ("memoryless_euler", 3), ("memoryless_euler", 5)]
    assert list(zip(table["kernel"], table["steps"], strict=True)) == points
    for column in ("success", "path_kl", "endpoint_kl", "lambda"):
        assert table[column].is_finite().all(), column
    drawn = (out / "kernels.svg").read_text(encoding="utf-8")
    assert "every point: 1 seed, 2 evaluation episodes in all; bars: 95 %" in drawn
    logged = scan_training([out]).filter(metric="endpoint_kl").collect()
    assert logged.height == 4 * 4  # every log line of every point
    rows = outcomes(out)
    late = logged.filter(pl.col("step") > 15).sort("variant")
    assert rows.sort("variant")["endpoint_kl"].to_list() == pytest.approx(late["value"].to_list())


@pytest.mark.slow
def test_the_parts_of_sqam(tmp_path: Path, data_dir: Path) -> None:
    out = tmp_path / "run"
    values = ["--penalties", "0", "0.3", "--path-samples", "8"]
    assert main(command("sqam", *values, data_dir=data_dir, out=out)) == 0
    table = pl.read_csv(out / "sqam.csv")
    points = [("lean", 0.0), ("lean", 0.3), ("scalar", 0.0), ("scalar", 0.3)]
    assert list(zip(table["estimator"], table["penalty"], strict=True)) == points
    for column in ("success", "path_kl", "realised_path_kl", "lambda"):
        assert table[column].is_finite().all(), column
    gaps = scan_training([out]).filter(metric="value_gap").collect()
    assert gaps["variant"].str.contains("value-penalty=0.3").all()
    assert gaps.height == 2 * 4  # every log line of the points with a penalty


@pytest.mark.slow
def test_a_diffusion_policy_goes_through_the_job(tmp_path: Path, data_dir: Path) -> None:
    settings = ["prediction=noise", "kernel=adams_bashforth", "dual=solve"]
    command = ["offline", "--suite", "quick", "--preset", "smoke", "--tasks", "1", "--set"]
    places = ["--data-dir", str(data_dir), "--out", str(tmp_path / "run")]
    assert main([*command, *settings, *places]) == 0
    found = scan_training([tmp_path / "run"]).filter(agent="trqam").collect()
    assert {"lambda_solved", "flow_loss", "path_kl"} <= set(found["metric"])
    assert found["value"].is_finite().all()
