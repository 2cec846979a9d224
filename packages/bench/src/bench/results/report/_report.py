"""Everything that `bench report` writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from matplotlib.figure import Figure

from bench.experiment import Phase
from bench.results._aggregate import aggregate_table, method_scores, pairs_table
from bench.results._cells import labelled_evaluations
from bench.results._final import FinalTable, final_table, phases
from bench.results._scores import method_label
from bench.results._views import (
    aggregate_view,
    by_scope,
    domain_view,
    improvement_view,
    phase_view,
    task_view,
    write_table,
)
from bench.results.report._curves import success_curves, training_curves
from bench.results.report._figures import bars, curve_grid, profiles
from bench.results.report._page import Picture, Section, html_page
from bench.results.report._sensitivity import sensitivity, sweeps_of
from bench.results.report._style import Looks, looks_of, rendered
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
    aggregate, pairs = aggregate_table(table), pairs_table(table)
    written = write_table(table, directory, aggregate, pairs)
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
    sections = [*_tables(table), *_statistics(aggregate, pairs), *pictures]
    write_bytes(page, html_page(table, sections, runs, made_at).encode())
    return Report(table, page, (page, *written))


def _tables(table: FinalTable) -> list[Section]:
    sections = [
        Section(
            f"By domain, {phase}",
            "Success in percent after the last update, mean ± sample standard deviation over "
            "seeds. Columns marked published are not ours; they name their source.",
            domain_view(table, phase),
        )
        for phase in phases(table)
    ]
    if (both := phase_view(table)).height:
        sections.append(
            Section(
                "Offline and online",
                "Success in percent after the last step of each phase, and at the best evaluation "
                "(chosen afterwards, so it flatters), mean ± sample standard deviation over seeds.",
                both,
            )
        )
    sections.append(
        Section(
            "By task",
            "Success after the last update and at the best evaluation (chosen afterwards, so it "
            "flatters). 95 %: Wilson over episodes for one seed, bootstrap over seeds for several.",
            task_view(table),
        )
    )
    return sections


def _statistics(aggregate: pl.DataFrame, pairs: pl.DataFrame) -> list[Section]:
    over_all = [
        Section(
            f"Over all tasks of {suite}, {phase}",
            "95 %: bootstrap over seeds, stratified by task.",
            aggregate_view(rows),
        )
        for (suite, phase), rows in by_scope(aggregate)
    ]
    better = [
        Section(
            f"Which method is better on {suite}, {phase}",
            "Probability that a run of the first beats a run of the second on a task of theirs "
            "drawn at random; ties count one half. p: permutation test of the mean difference over "
            "seeds within tasks; corrected: by Holm for the number of pairs. Better: corrected p "
            "below 0.05; probably better: only the uncorrected one. Few seeds decide little, "
            "however large the gap.",
            improvement_view(rows),
        )
        for (suite, phase), rows in by_scope(pairs)
    ]
    return [*over_all, *better]


def _drawings(runs: Sequence[Path], table: FinalTable) -> list[_Drawing]:
    """All figures that the runs have data for."""
    looks = looks_of(_methods(table))
    note = _basis(table)
    drawings: list[_Drawing] = []
    curves = success_curves(labelled_evaluations(runs), table.cells)
    if curves:
        caption = (
            f"Success over training. Runs per line: {_listed({curve.runs for curve in curves})}; "
            f"band: {'; '.join(sorted({curve.band for curve in curves}))}. A level marks a method "
            f"that ends with pretraining.{_online_note(table)}"
        )
        figure = curve_grid(
            curves, "success, %", looks, note=note, percent=True, online_from=_online_from(table)
        )
        drawings.append(_Drawing("Learning curves", caption, figure))
    drawings += _trust_region(runs, table, looks, note)
    for phase in phases(table):
        rows = table.domains.filter(pl.col("phase").is_in([phase, Phase.PRETRAIN]))
        if rows["success"].null_count() < rows.height:
            caption = (
                f"Final success per domain, {phase}. Filled: ours, 95 % intervals; runs per task: "
                f"{_listed(rows['seeds'].drop_nulls())}. Hatched: published, with their standard "
                "deviation over seeds."
            )
            figure = bars(rows, phase, looks, note=note)
            drawings.append(_Drawing(f"Domains, {phase}", caption, figure))
    for sweep in sweeps_of(table.domains):
        caption = f"Final success against {sweep.label}, with 95 % intervals; {note}."
        figure = sensitivity(sweep, note=note)
        drawings.append(_Drawing(f"Success against {sweep.label}", caption, figure))
    for suite in table.tasks["suite"].unique().sort():
        for phase in phases(table):
            scores = method_scores(table, suite, phase)
            values = {method: list(tasks.values()) for method, tasks in scores.items()}
            if any(len(task) > 1 for tasks in values.values() for task in tasks):
                caption = (
                    "Share of runs above a success rate, tasks weighing the same; band: 95 %, "
                    f"bootstrap over seeds; {note}."
                )
                title = f"Performance profile, {suite}, {phase}"
                drawings.append(_Drawing(title, caption, profiles(values, looks, note=note)))
    return drawings


def _trust_region(
    runs: Sequence[Path], table: FinalTable, looks: Looks, note: str
) -> list[_Drawing]:
    drawings = []
    online = _online_from(table)
    kl = training_curves(runs, table.cells, "path_kl")
    if kl:
        caption = (
            "Path KL of the updates, in nats per action, and the budget that was in force (dotted; "
            "the lowest and the highest where runs differ). Line: mean over runs; band: smallest "
            f"to largest run; {note}.{_online_note(table)}"
        )
        grid = curve_grid(
            kl, "path KL", looks,
            note=note, levels=training_curves(runs, table.cells, "kl_budget"),
            level_label="KL budget", online_from=online,
        )  # fmt: skip
        drawings.append(_Drawing("Path KL", caption, grid))
    multiplier = training_curves(runs, table.cells, "lambda")
    if multiplier:
        caption = (
            "The trust region's multiplier. Line: mean over runs; band: smallest to largest run; "
            f"{note}.{_online_note(table)}"
        )
        positive = all(float(curve.low.min()) > 0 for curve in multiplier)
        grid = curve_grid(
            multiplier, "lambda", looks, note=note, logarithmic=positive, online_from=online
        )
        drawings.append(_Drawing("Lambda", caption, grid))
    return drawings


def _methods(table: FinalTable) -> list[str]:
    pairs = table.cells.select("agent", "variant").unique().iter_rows()
    return sorted({method_label(agent, variant) for agent, variant in pairs})


def _basis(table: FinalTable) -> str:
    """What every figure rests on, for the figure itself and its caption."""
    seeds = _listed(table.tasks.filter(pl.col("runs") > 0)["seeds"])
    episodes = _listed(table.cells["episodes"].drop_nulls())
    return f"seeds per task: {seeds}; episodes per evaluation and seed: {episodes}"


def _online_from(table: FinalTable) -> float | None:
    """Where the online phase begins on the axis of steps, see `success_curves`."""
    cells = table.cells
    if Phase.ONLINE not in cells["phase"]:
        return None
    offline = cells.filter(pl.col("phase") == Phase.OFFLINE)["planned_step"].max()
    return float(offline) if isinstance(offline, int) else None


def _online_note(table: FinalTable) -> str:
    return "" if _online_from(table) is None else " Right of the line: the online phase."


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(numbers))))
