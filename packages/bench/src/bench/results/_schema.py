"""The columns of the two result tables. `docs/results.md` explains each of them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from bench.experiment import Phase

__all__ = [
    "CELL_COLUMNS",
    "EVALUATIONS",
    "PHASES",
    "TIMING_COLUMNS",
    "TRAINING",
    "TableSchema",
    "metric_rows",
]

PHASES = tuple(map(str, Phase))
CELL_COLUMNS = ("suite", "domain", "task", "agent", "variant", "seed")
# What two undisturbed runs of the same cell may differ in.
TIMING_COLUMNS = ("seconds_training", "seconds_evaluation", "updates_per_second", "recorded_at")


@dataclass(frozen=True, slots=True)
class TableSchema:
    """Name, version and columns of a table.

    A new column raises no version: readers insert it as null into older files and ignore it in
    newer ones. A changed meaning does, and needs a step in `bench.results._scan`.

    Attributes:
        columns: column name to polars type, in the order of the file.
        required: columns that every row must fill.
    """

    name: str
    version: int
    columns: Mapping[str, pl.DataType]
    required: tuple[str, ...]

    def frame(self, rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
        """Rows as a table of this schema, with derived and default values filled in.

        Raises:
            ValueError: an unknown column, a missing or impossible value; names row and column.
        """
        complete = [self._complete(row, f"row {index}") for index, row in enumerate(rows)]
        try:
            return pl.DataFrame(complete, schema=dict(self.columns), strict=True)
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise ValueError(f"a value has the wrong type for table {self.name}: {error}") from None

    def _complete(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        for name in row:
            if name not in self.columns or name == "schema_version":
                near = difflib.get_close_matches(name, self.columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{place} has the unknown column {name!r}{hint}")
        for name in self.required:
            if row.get(name) is None:
                raise ValueError(
                    f"{place} lacks {name!r}, which is required in every row of {self.name}"
                )
        if row["phase"] not in PHASES:
            raise ValueError(f"{place} has the phase {row['phase']!r}, expected one of {PHASES}")
        full = {"variant": "", "recorded_at": datetime.now(UTC)} | dict(row)
        full["schema_version"] = self.version
        if "success_rate" in self.columns:
            full["success_rate"] = _success_rate(row, place)
        return {name: full.get(name) for name in self.columns}


_CELL: dict[str, pl.DataType] = {
    "schema_version": pl.Int16(),
    "suite": pl.String(),
    "domain": pl.String(),
    "task": pl.String(),
    "agent": pl.String(),
    "variant": pl.String(),
    "seed": pl.Int64(),
    "phase": pl.String(),
    "step": pl.Int64(),
}
_REQUIRED = ("suite", "domain", "task", "agent", "seed", "phase", "step")

EVALUATIONS = TableSchema(
    name="evaluations",
    version=1,
    columns=_CELL
    | {
        "episodes": pl.Int64(),
        "successes": pl.Int64(),
        "success_rate": pl.Float64(),
        "return_mean": pl.Float64(),
        "length_mean": pl.Float64(),
        "path_kl": pl.Float64(),
        "kl_budget": pl.Float64(),
        "lambda": pl.Float64(),
        "data_source": pl.String(),
        "data_fingerprint": pl.String(),
        "protocol_fingerprint": pl.String(),
        "mujoco_version": pl.String(),
        "ogbench_version": pl.String(),
        "torch_version": pl.String(),
        "device": pl.String(),
        "precision": pl.String(),
        "seconds_training": pl.Float64(),
        "seconds_evaluation": pl.Float64(),
        "updates_per_second": pl.Float64(),
        "failed_at_step": pl.Int64(),
        "failure": pl.String(),
        "recorded_at": pl.Datetime("us", "UTC"),
    },
    required=_REQUIRED,
)

TRAINING = TableSchema(
    name="training",
    version=1,
    columns=_CELL | {"metric": pl.String(), "value": pl.Float64()},
    required=(*_REQUIRED, "metric"),
)


def metric_rows(
    cell: Mapping[str, Any], phase: str, step: int, metrics: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Rows of `TRAINING` for what one cell logged at one step.

    Args:
        cell: values of the cell columns (`suite`, `domain`, `task`, `agent`, `seed`, `variant`).
        phase: one of `PHASES`.
        step: training step within the phase.
        metrics: name to value; not-a-number is kept as such.
    """
    shared = {name: cell[name] for name in CELL_COLUMNS if name in cell}
    return [
        shared | {"phase": phase, "step": step, "metric": name, "value": float(value)}
        for name, value in metrics.items()
    ]


def _success_rate(row: Mapping[str, Any], place: str) -> float | None:
    episodes, successes = row.get("episodes"), row.get("successes")
    if successes is None:
        if row.get("success_rate") is not None:
            raise ValueError(f"{place} gives success_rate; give episodes and successes instead")
        return None
    if not episodes or not 0 <= successes <= episodes:
        raise ValueError(f"{place} has {successes} successes in {episodes} episodes")
    rate = float(successes) / float(episodes)
    given = row.get("success_rate")
    if given is not None and abs(given - rate) > 1e-9:
        raise ValueError(f"{place} has success_rate {given}, but {successes}/{episodes} successes")
    return rate
