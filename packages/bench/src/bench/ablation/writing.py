"""How the ablations write what they found: a table as text and data, and a figure."""

from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from bench.ablation.figures import drawn
from bench.results import markdown_table
from bench.storage import write_bytes

__all__ = ["Written", "as_text", "basis_of", "success_in_percent", "write_results"]

Written = tuple[pl.DataFrame, tuple[Path, ...]]
"""A table, and the files that hold it and its figure."""


def success_in_percent(part: pl.DataFrame) -> tuple[list[float], list[float], list[float]]:
    """Success with the ends of its interval, in percent."""
    value, low, high = (
        (100.0 * part[name].fill_null(part["success"])).to_list()
        for name in ("success", "success_low", "success_high")
    )
    return value, low, high


def basis_of(rows: pl.DataFrame) -> str:
    """What every point rests on, in words."""

    def counted(column: str, noun: str) -> str:
        found = sorted(set(rows[column].to_list()))
        several = "s" * (found[-1] > 1)
        return f"{' or '.join(map(str, found))} {noun}{several}"

    return (
        f"every point: {counted('seeds', 'seed')}, {counted('episodes', 'evaluation episode')} in "
        "all; bars: 95 %"
    )


def write_results(directory: Path, name: str, table: pl.DataFrame, figure: Figure) -> Written:
    """Keep a table as .md and .csv beside its figure as .svg and .png."""
    directory.mkdir(parents=True, exist_ok=True)
    write_bytes(directory / f"{name}.md", markdown_table(as_text(table)).encode())
    write_bytes(directory / f"{name}.csv", table.write_csv().encode())
    for kind in ("svg", "png"):
        write_bytes(directory / f"{name}.{kind}", drawn(figure, kind))
    kinds = ("md", "csv", "svg", "png")
    return table, tuple(directory / f"{name}.{kind}" for kind in kinds)


def as_text(table: pl.DataFrame) -> pl.DataFrame:
    """A table as people read it: three digits, and a dash for what is not known."""
    return table.with_columns(
        pl.col(column).map_elements(_three_digits, return_dtype=pl.String)
        for column, kind in table.schema.items()
        if kind == pl.Float64
    ).with_columns(pl.all().cast(pl.String).fill_null("-"))


def _three_digits(value: float) -> str:
    return f"{value:.3g}"
