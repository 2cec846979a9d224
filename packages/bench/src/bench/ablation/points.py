"""TRQAM at several settings in one run directory, through the normal training job."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import polars as pl

from bench.experiment import OfflineRequest, Phase, given_settings, is_cloning
from bench.results import final_table, scan_training, without_stopped
from bench.training.existing_packs import in_existing_packs
from bench.training.options import GridPoint, Plan, plan_grid, plan_offline, resolved_options

__all__ = ["Point", "grid_point", "outcomes", "plan_points", "refuse_given"]

_POINT = ["domain", "agent", "variant"]
_MEASURED = ("path_kl", "endpoint_kl", "realised_path_kl", "lambda")

Point = Mapping[str, object]
"""Settings of one point; their texts are its variant in the tables."""


def plan_points(offline: OfflineRequest, name: str, points: Sequence[Point]) -> Plan:
    """The packs of every point; all of them start from the same cloned policies.

    Args:
        offline: the run at every point.
        name: of the ablation, for the run directory.
        points: settings of fine-tuning by name.

    Raises:
        ValueError: another agent than TRQAM, a setting that is also given by itself, no points, or
            whatever the offline phase refuses.
    """
    if offline.agent != ("trqam",):
        raise ValueError(
            f"this ablation compares settings of trqam; --agent {' '.join(offline.agent)} does "
            "not apply"
        )
    if not points:
        raise ValueError("nothing to compare: give at least one value")
    refuse_given(offline, {setting for point in points for setting in point})
    offline = resolved_options(offline, f"ablate-{name}")
    base = plan_offline(offline)
    grid = [grid_point(offline, point) for point in points]
    return in_existing_packs(plan_grid(base, grid, kept=base.pretraining))


def refuse_given(offline: OfflineRequest, compared: Iterable[str]) -> None:
    """Refuse settings that are compared where they are given by themselves, too.

    Raises:
        ValueError: one of them is.
    """
    given = {text.partition("=")[0].strip().replace("-", "_") for text in offline.set}
    given |= given_settings(offline).keys()
    if both := sorted(given & set(compared)):
        raise ValueError(f"{both[0]} is the setting being compared; do not also set it separately")


def grid_point(offline: OfflineRequest, point: Point, variant: Sequence[str] = ()) -> GridPoint:
    """The run at one point.

    Args:
        offline: the run at every point.
        point: settings of fine-tuning by name.
        variant: what the tables call it; by default its settings.
    """
    texts = tuple(f"{setting}={value}" for setting, value in point.items())
    named = tuple(f"{key.replace('_', '-')}={_short(value)}" for key, value in point.items())
    called = tuple(variant) or named
    request = replace(offline, set=(*offline.set, *texts))
    return GridPoint(request, ", ".join(called), partial(_variant, variant=called))


def _variant(agent: str, variant: tuple[str, ...]) -> tuple[str, ...]:
    return () if is_cloning(agent) else variant


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def outcomes(directory: Path, agents: Sequence[str] | None = ("trqam",)) -> pl.DataFrame:
    """Success and measured KL of every point, means over tasks and seeds.

    Args:
        directory: of the run.
        agents: whose points; None for those of all, the clone's among them.

    Returns:
        A row per domain, agent and variant: `success` with `success_low` and `success_high` at the
        last evaluation, `seeds` and `episodes` (of all runs together), and the means of `path_kl`,
        `endpoint_kl`, `realised_path_kl` (null where not measured) and `lambda` over the last
        quarter of the logged steps.
    """
    table = final_table([directory])
    wanted = pl.lit(True) if agents is None else pl.col("agent").is_in(agents)
    success = table.domains.filter(wanted)
    logged = scan_training([directory]).filter(wanted, phase=Phase.OFFLINE).collect()
    of_agents = without_stopped(logged, table.cells)
    late = of_agents.filter(pl.col("step") > 0.75 * pl.col("step").max().over(_POINT))
    measured = late.filter(pl.col("metric").is_in(_MEASURED))
    means = measured.group_by(*_POINT, "metric").agg(pl.col("value").mean())
    counted = ("success", "success_low", "success_high", "seeds", "episodes")
    rows = success.select(*_POINT, *counted)
    for metric in _MEASURED:
        column = means.filter(metric=metric).select(*_POINT, pl.col("value").alias(metric))
        rows = rows.join(column, on=_POINT, how="left")
    return rows
