"""Everything that `bench report` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from bench.results._cells import labelled_evaluations
from bench.results._final import FinalTable, final_table
from bench.results._views import domain_view, phases, task_view, write_table
from bench.results.report._aggregate import aggregate_view, improvement_view, method_scores
from bench.results.report._curves import success_curves, training_curves
from bench.results.report._figures import (
    bars,
    budget_sensitivity,
    curve_grid,
    profiles,
    rendered,
)
from bench.results.report._page import Picture, Section, html_page
from bench.storage import write_bytes

__all__ = ["Report", "write_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was written.

    Attributes:
        table: the numbers.
        page: the HTML file.
        files: all files, the page first.
    """

    table: FinalTable
    page: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Drawing:
    title: str
    caption: str
    figure: Figure


def write_report(
    runs: Sequence[Path], directory: Path, *, unfinished: bool = False, mix: bool = False
) -> Report:
    """Writes tables (Markdown, CSV, parquet), figures (SVG, PNG) and `report.html`.

    Args:
        runs: run directories, their parents, or table files.
        directory: where to; made if missing.
        unfinished: as for `final_table`.
        mix: as for `final_table`.

    Raises:
        ResultsError: nothing to report, or tables that cannot be read.
        MixedOriginError: rows that do not measure the same thing.
        OSError: the directory cannot be written.
    """
    table = final_table(runs, unfinished=unfinished, mix=mix)
    written = write_table(table, directory)
    pictures = []
    for drawing in _drawings(runs, table):
        name = drawing.title.lower().replace(",", "").replace(" ", "-")
        svg = rendered(drawing.figure, "svg")
        write_bytes(directory / f"{name}.svg", svg)
        write_bytes(directory / f"{name}.png", rendered(drawing.figure, "png"))
        written += [directory / f"{name}.svg", directory / f"{name}.png"]
        picture = Picture(name, drawing.caption, svg.decode())
        pictures.append(Section(drawing.title, picture=picture))
    page = directory / "report.html"
    made_at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    write_bytes(page, html_page(table, [*_tables(table), *pictures], runs, made_at).encode())
    return Report(table, page, (page, *written))


def _tables(table: FinalTable) -> list[Section]:
    sections = [
        Section(
            f"By domain, {phase}",
            "Success in percent after the last update, mean ± sample standard deviation over "
            "seeds. Columns marked published are not ours; they name their source.",
            domain_view(table, phase, published=True),
        )
        for phase in phases(table)
    ]
    sections.append(
        Section(
            "By task",
            "Success after the last update and at the best evaluation (chosen afterwards, so it "
            "flatters). 95 %: Wilson over episodes for one seed, bootstrap over seeds for several.",
            task_view(table),
        )
    )
    for suite in table.tasks["suite"].unique().sort():
        for phase in phases(table):
            methods = method_scores(table, suite, phase)
            if methods:
                sections.append(
                    Section(
                        f"Over all tasks of {suite}, {phase}",
                        "95 %: bootstrap over seeds, stratified by task.",
                        aggregate_view(table, suite, phase),
                    )
                )
            pairs = improvement_view(table, suite, phase)
            if pairs.height:
                sections.append(
                    Section(
                        f"Which method is better on {suite}, {phase}",
                        "Probability that a run of the first beats a run of the second on a task "
                        "of theirs drawn at random; ties count one half.",
                        pairs,
                    )
                )
    return sections


def _drawings(runs: Sequence[Path], table: FinalTable) -> list[_Drawing]:
    """All figures that the runs have data for."""
    drawings: list[_Drawing] = []
    curves = success_curves(labelled_evaluations(runs), table.cells)
    if curves:
        episodes = sorted(set(table.cells["episodes"].drop_nulls()))
        caption = (
            f"Success over training. Runs per line: {_listed({curve.runs for curve in curves})}; "
            f"episodes per evaluation and run: {_listed(episodes)}; band: "
            f"{'; '.join(sorted({curve.band for curve in curves}))}. A level marks a method that "
            "ends with pretraining."
        )
        figure = curve_grid(curves, "success, %", percent=True)
        drawings.append(_Drawing("Learning curves", caption, figure))
    drawings += _trust_region(runs, table)
    for phase in phases(table):
        rows = table.domains.filter(pl.col("phase").is_in([phase, "pretrain"]))
        if rows["success"].null_count() < rows.height:
            caption = (
                f"Final success per domain, {phase}. Filled: ours, 95 % intervals; runs per task: "
                f"{_listed(rows['seeds'].drop_nulls())}. Hatched: published, with their standard "
                "deviation over seeds."
            )
            drawings.append(_Drawing(f"Domains, {phase}", caption, bars(rows, phase)))
    sensitivity = budget_sensitivity(table.domains)
    if sensitivity is not None:
        caption = "Final success against the KL budget, with 95 % intervals."
        drawings.append(_Drawing("Success against KL budget", caption, sensitivity))
    for suite in table.tasks["suite"].unique().sort():
        for phase in phases(table):
            scores = method_scores(table, suite, phase)
            values = {method: list(tasks.values()) for method, tasks in scores.items()}
            if any(len(task) > 1 for tasks in values.values() for task in tasks):
                caption = (
                    "Share of runs above a success rate, tasks weighing the same; band: 95 %, "
                    "bootstrap over seeds."
                )
                title = f"Performance profile, {suite}, {phase}"
                drawings.append(_Drawing(title, caption, profiles(values)))
    return drawings


def _trust_region(runs: Sequence[Path], table: FinalTable) -> list[_Drawing]:
    drawings = []
    budgets = table.cells["kl_budget"].drop_nulls().unique().to_list()
    kl = training_curves(runs, table.cells, "path_kl")
    if kl:
        caption = (
            "Path KL of the updates against its budget (dotted, where all runs share one). Line: "
            "mean over runs; band: smallest to largest run."
        )
        level = budgets[0] if len(budgets) == 1 else None
        grid = curve_grid(kl, "path KL", level=level, level_label="KL budget")
        drawings.append(_Drawing("Path KL", caption, grid))
    multiplier = training_curves(runs, table.cells, "lambda")
    if multiplier:
        caption = "Line: mean over runs; band: smallest to largest run."
        positive = all(float(curve.low.min()) > 0 for curve in multiplier)
        grid = curve_grid(multiplier, "lambda", logarithmic=positive)
        drawings.append(_Drawing("Lambda", caption, grid))
    return drawings


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
