"""`bench ablate sensitivity` and `data`: what is run, and what the tables say."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bench.ablation.commands import plan_ablation
from bench.ablation.sensitivity import _order
from bench.agents import AGENTS
from bench.cli import main
from bench.experiment import DataRequest, SensitivityRequest
from bench.training.options import Plan

SMOKE = SensitivityRequest(suite="quick", preset="smoke", tasks=(1,))
DATA = DataRequest(suite="quick", preset="smoke", tasks=(1,))


def changes(plan: Plan) -> dict[str, object]:
    return {" ".join(pack.variant): plan.configs[pack.name] for pack in plan.packs}


def test_one_setting_is_changed_at_a_time() -> None:
    plan = plan_ablation(replace(SMOKE, num_critics=(2, 4), flow_steps=(1, 3), factors=(0.1, 10.0)))
    found = changes(plan)
    own = found.pop("unchanged")
    # Suite and preset have two critics and three flow steps already.
    assert found == {
        "max-gradient-norm=none": replace(own, max_gradient_norm=None),
        "num-critics=4": replace(own, num_critics=4),
        "flow-steps=1": replace(own, flow_steps=1),
        "inverse-temperature=x0.1": replace(own, inverse_temperature=pytest.approx(0.3)),
        "inverse-temperature=x10": replace(own, inverse_temperature=pytest.approx(30.0)),
    }
    assert len(plan.pretraining) == 1
    assert all(plan.pretraining_of(pack) == plan.pretraining[:1] for pack in plan.packs)
    assert str(plan.directory) == "runs/quick-smoke-ablate-sensitivity"


def test_every_domain_is_changed_from_its_own_values() -> None:
    request = SensitivityRequest(
        suite="ogbench50-qam",
        preset="smoke",
        domains=("scene-play", "puzzle-4x4-play"),
        factors=(0.1,),
        flow_steps=(),
        num_critics=(),
        unclipped=False,
        pretrain_steps=5,
    )
    plan = plan_ablation(request)
    found = {
        pack.domain.name: plan.configs[pack.name].inverse_temperature
        for pack in plan.packs
        if pack.variant == ("inverse-temperature=x0.1",)
    }
    assert found == {"scene-play": pytest.approx(0.1), "puzzle-4x4-play": pytest.approx(3.0)}
    assert len({pack.name for pack in plan.packs}) == len(plan.packs)
    assert {pack.domain.name for pack in plan.pretraining} == set(found)


def test_trqams_strength_is_its_budget() -> None:
    found = changes(plan_ablation(replace(SMOKE, agent=("trqam",), factors=(3.0,))))
    budget = found["kl-budget=x3"].kl_budget  # type: ignore[attr-defined]
    assert budget == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"agent": ("qam", "trqam")}, "one agent that is fine-tuned, got qam trqam"),
        ({"agent": ("bc",)}, "one agent that is fine-tuned, got bc"),
        ({"agent": ("rebrac",)}, "'rebrac' has no setting flow_steps"),
        ({"agent": ("fql",)}, "'fql' has no setting inverse_temperature or kl_budget"),
        ({"factors": (0.0,)}, "--factors must be positive"),
        ({"flow_steps": (0,)}, "--flow-steps must be at least 1"),
        ({"set": ("flow_steps=4",)}, "flow_steps is the setting being compared"),
    ],
)
def test_what_cannot_be_changed_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_ablation(replace(SMOKE, **changed))  # type: ignore[arg-type]


def test_rows_are_in_the_order_of_their_values() -> None:
    names = [
        "flow-steps=30",
        "flow-steps=1",
        "inverse-temperature=x10",
        "num-critics=10",
        "num-critics=2",
    ]
    names += ["inverse-temperature=x0.1", "max-gradient-norm=none", "unchanged", "flow-steps=3"]
    assert sorted(names, key=_order) == [
        "unchanged",
        "flow-steps=1",
        "flow-steps=3",
        "flow-steps=30",
        "inverse-temperature=x0.1",
        "inverse-temperature=x10",
        "max-gradient-norm=none",
        "num-critics=2",
        "num-critics=10",
    ]


def test_the_same_tasks_from_every_kind_of_data() -> None:
    plan = plan_ablation(DATA)
    kinds = ("navigate", "stitch", "explore")
    assert [pack.domain.name for pack in plan.packs] == [f"pointmaze-medium-{k}" for k in kinds]
    assert [pack.domain.dataset for pack in plan.packs] == [
        f"pointmaze-medium-{k}-5k-v0" for k in kinds
    ]
    first, *others = (plan.configs[pack.name] for pack in plan.packs)
    assert all(config == first for config in others)
    assert len(plan.pretraining) == 3  # a clone of each
    assert str(plan.directory) == "runs/quick-smoke-ablate-data"
    assert len(plan_ablation(replace(DATA, kinds=("stitch",))).packs) == 1
    named = replace(DATA, suite="ogbench50", domains=("antmaze-large-navigate",), tasks=(2,))
    (pack,) = plan_ablation(replace(named, kinds=("explore",))).packs
    assert pack.domain.dataset == "antmaze-large-explore-5k-v0"


def test_kinds_that_there_are_not_are_refused() -> None:
    with pytest.raises(ValueError, match="no data of kind 'noisy'; it has navigate, stitch"):
        plan_ablation(replace(DATA, kinds=("noisy",)))
    with pytest.raises(ValueError, match="--dataset and --env do not apply"):
        plan_ablation(replace(DATA, suite=None, dataset="x.npz", env="Pendulum-v1"))


@pytest.mark.slow
def test_both_studies_write_table_and_figure(tmp_path: Path) -> None:
    places = ["--suite", "quick", "--preset", "smoke", "--tasks", "1"]
    places += ["--data-dir", str(tmp_path / "data"), "--out"]
    out = tmp_path / "sensitivity"
    values = ["--flow-steps", "1", "--num-critics", "1", "--factors", "10"]
    assert main(["ablate", "sensitivity", *values, *places, str(out)]) == 0
    table = pl.read_csv(out / "sensitivity.csv")
    assert table["change"].to_list() == [
        "unchanged",
        "flow-steps=1",
        "inverse-temperature=x10",
        "max-gradient-norm=none",
        "num-critics=1",
    ]
    assert set(table["agent"]) == {"qam"}
    for column in ("success", "path_kl"):
        assert table[column].is_finite().all(), column
    assert table["path_kl"].n_unique() == 5
    drawn = (out / "sensitivity.svg").read_text(encoding="utf-8")
    assert "inverse-temperature=x10" in drawn
    assert "every point: 1 seed, 2 evaluation episodes in all" in drawn

    out = tmp_path / "kinds"
    values = ["--agent", "trqam", "qgf", "--kinds", "navigate", "stitch"]
    assert main(["ablate", "data", *values, *places, str(out)]) == 0
    table = pl.read_csv(out / "data.csv")
    assert set(table["environment"]) == {"pointmaze-medium"}
    assert set(zip(table["data"], table["agent"], strict=True)) == {
        (kind, agent) for kind in ("navigate", "stitch") for agent in ("bc", "trqam", "qgf")
    }
    assert table["success"].null_count() == 0
    assert set(table.filter(pl.col("path_kl").is_not_null())["agent"]) == {"trqam"}
    assert (out / "data.png").read_bytes().startswith(b"\x89PNG")
    assert {"trqam", "qgf"} <= set(AGENTS)
