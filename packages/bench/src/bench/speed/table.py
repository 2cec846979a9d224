"""The table of `bench speed`, printed and written with what is installed."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from bench.speed.row import SpeedRow

__all__ = ["format_table", "write_rows"]

_HEADINGS = {
    "agent": "agent",
    "width": "width",
    "replicas": "R",
    "batch": "batch",
    "precision": "precision",
    "mode": "mode",
    "processes": "processes",
    "threads": "threads",
    "updates_per_s": "updates/s",
    "replica_updates_per_s": "replica-updates/s",
    "first_update_s": "first, s",
    "memory_mb": "peak MB",
    "launches": "launches",
    "gflops": "GFLOP/s",
    "ceiling_gflops": "ceiling",
    "share": "share",
}


def format_table(rows: Sequence[SpeedRow]) -> str:
    """A Markdown table."""
    cells = [[_text(name, getattr(row, name)) for name in _HEADINGS] for row in rows]
    lines = [list(_HEADINGS.values()), ["---"] * len(_HEADINGS), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_rows(rows: Sequence[SpeedRow], path: Path) -> None:
    """Write all columns as .csv, .json or .parquet (which needs polars).

    Raises:
        OSError: the file cannot be written.
    """
    records = [asdict(row) for row in rows]
    if path.suffix == ".parquet":
        import polars

        polars.DataFrame(records, infer_schema_length=None).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(SpeedRow)])
            writer.writeheader()
            writer.writerows(records)


def _text(name: str, value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{100 * value:.0f} %" if name == "share" else f"{value:,.4g}"
    return str(value).replace("|", "\\|")
