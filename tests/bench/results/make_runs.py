"""Run directories with known numbers, as the trainer would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.results import TRAINING, ResultWriter, metric_rows
from bench.storage import PlannedCell, RunRecord, collect_provenance, write_run
from bench.suites import suite

ORIGIN = {
    "data_source": "generated",
    "data_fingerprint": "aaaa",
    "protocol_fingerprint": "pppp",
    "mujoco_version": "3.3.7",
    "ogbench_version": "1.2.1",
    "torch_version": "2.11.0",
    "device": "cpu",
    "precision": "float32",
}


def task_name(domain: str, index: int) -> str:
    return f"{domain}-singletask-task{index}-v0"


def cell(
    task: int = 1, seed: int = 0, agent: str = "trqam", domain: str = "pointmaze-medium-navigate"
) -> dict[str, Any]:
    return {
        "suite": "quick",
        "domain": domain,
        "task": task_name(domain, task),
        "agent": agent,
        "variant": "",
        "seed": seed,
    }


def evaluation(of: Mapping[str, Any], step: int, successes: int, **more: Any) -> dict[str, Any]:
    return dict(of) | {
        "phase": "offline",
        "step": step,
        "episodes": 50,
        "successes": successes,
        "path_kl": 0.39,
        "kl_budget": 0.4,
        "lambda": 0.42,
        **ORIGIN,
        **more,
    }


def suite_settings(
    name: str, domain: str, agent: str = "qam", pack: str = "pack", **other: Any
) -> dict[str, Any]:
    """What `bench offline` writes of a run by the suite's protocol, but for `other` values."""
    protocol = asdict(suite(name).protocol)
    del protocol["online"]
    entry = {"agent": agent, "dataset": suite(name).domain(domain).dataset, "settings": {}}
    return {"suite": name, "protocol": protocol | other, "packs": {pack: entry}}


def make_run(
    directory: Path,
    results: Sequence[tuple[Mapping[str, Any], Mapping[int, int]]],
    *,
    planned_step: int = 100,
    more_cells: Sequence[Mapping[str, Any]] = (),
    pack: str = "pack",
    settings: Mapping[str, Any] | None = None,
    metrics: bool = True,
    budgets: Mapping[int, float] | None = None,
    **columns: Any,
) -> Path:
    """A run whose cells have the given successes (of 50) per step, and KL budgets from steps on."""
    cells = [of for of, _ in results] + list(more_cells)
    planned = [PlannedCell(**of, final_steps={"offline": planned_step}, pack=pack) for of in cells]
    command = ["bench", "offline", "--suite", "quick", "--out", str(directory)]
    write_run(
        directory,
        RunRecord(command, dict(settings or {}), collect_provenance(command), planned),
    )
    ResultWriter(directory / "packs" / pack / "evaluations.parquet").append(
        [
            evaluation(of, step, successes, **columns)
            for of, curve in results
            for step, successes in curve.items()
        ]
    )
    if metrics:
        _write_metrics(directory, results, pack, budgets or {0: 0.4})
    return directory


def _write_metrics(
    directory: Path,
    results: Sequence[tuple[Mapping[str, Any], Mapping[int, int]]],
    pack: str,
    budgets: Mapping[int, float],
) -> None:
    writer = ResultWriter(directory / "packs" / pack / "training.parquet", TRAINING)
    for of, curve in results:
        for step in range(0, max(curve) + 1, 10):
            budget = budgets[max(start for start in budgets if start <= step)]
            values = {"path_kl": min(0.4, step / 100), "lambda": 3.0 - step / 50}
            values["kl_budget"] = budget
            writer.append(metric_rows(of, "offline", step, values), flush=False)
    writer.flush()
