"""The tables as people read them: one formatting for console, Markdown and HTML."""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import ResultsError
from bench.experiment import Phase
from bench.results._aggregate import aggregate_table, pairs_table
from bench.results._final import FinalTable, phases
from bench.results._published import published_beside
from bench.results._schema import PHASES
from bench.results._scores import method_label, task_label
from bench.storage import write_bytes
from bench.terminal import standard_output

__all__ = [
    "aggregate_view",
    "by_scope",
    "domain_view",
    "improvement_view",
    "markdown_table",
    "percent",
    "phase_view",
    "print_table",
    "print_view",
    "task_view",
    "write_table",
]

MISSING = "–"


def percent(value: float | None, spread: float | None = None) -> str:
    """A rate in percent with one decimal, with its spread if there is one."""
    if value is None:
        return MISSING
    text = f"{100 * value:.1f}"
    return text if spread is None else f"{text} ± {100 * spread:.1f}"


def task_view(table: FinalTable, tasks: pl.DataFrame | None = None) -> pl.DataFrame:
    """One line per task, method and phase, as text; of `tasks`, rows of `table.tasks`, if given."""
    suites = table.tasks["suite"].n_unique() > 1
    rows = []
    for row in (table.tasks if tasks is None else tasks).iter_rows(named=True):
        task = task_label(row["task"])
        rows.append(
            {
                "task": f"{row['suite']}: {task}" if suites else task,
                "phase": row["phase"],
                "method": method_label(row["agent"], row["variant"]),
                "success %": percent(row["success"], row["success_std"]),
                "95 %": _ends(row["success_low"], row["success_high"]),
                "best %": percent(row["best"], row["best_std"]),
                "seeds": _seeds(row),
                "episodes": f"{row['episodes'] or 0:,}",
                "KL / budget": _kl(row),
                "step": MISSING if row["step"] is None else f"{row['step']:,}",
            }
        )
    return pl.DataFrame(rows)


def domain_view(table: FinalTable, phase: str) -> pl.DataFrame:
    """Domains by methods, mean ± standard deviation over seeds in percent, as text.

    Methods that end with pretraining (behaviour cloning) stand beside the others in every phase.
    A published column follows ours of that method and carries its source in its name;
    `published_beside` says which numbers are shown.

    Raises:
        ResultsError: no result of this phase.
    """
    first_only = (pl.col("phase") == Phase.PRETRAIN).all().over("suite", "agent", "variant")
    rows = table.domains.filter((pl.col("phase") == phase) | first_only)
    if rows.is_empty():
        raise ResultsError(f"the runs have no {phase} phase")
    several = rows["suite"].n_unique() > 1
    planned = rows.group_by("suite", "domain").agg(pl.col("tasks_planned").max())
    everywhere = {(suite, domain): tasks for suite, domain, tasks in planned.iter_rows()}
    view: dict[str, dict[str, str]] = {}
    for row in rows.iter_rows(named=True):
        name = f"{row['suite']}: {row['domain']}" if several else row["domain"]
        text = percent(row["success"], row["success_std"])
        tasks = everywhere[row["suite"], row["domain"]]
        if row["runs"] != row["runs_planned"]:
            text += f" ({row['runs'] or 0}/{row['runs_planned']} runs)"
        elif row["tasks"] < tasks:
            text += f" ({row['tasks']}/{tasks} tasks)"
        view.setdefault(name, {})[method_label(row["agent"], row["variant"])] = text
    published: dict[str, list[str]] = {}
    for row in published_beside(rows, phase).iter_rows(named=True):
        name = f"{row['suite']}: {row['domain']}" if several else row["domain"]
        spread = "" if row["std"] is None else f" ± {row['std']:.1f}"
        view[name][row["label"]] = f"{row['mean']:.1f}{spread}"
        published.setdefault(row["agent"], []).append(row["label"])
    columns = []
    for agent in rows["agent"].unique().sort():
        variants = rows.filter(agent=agent)["variant"].unique()
        columns += sorted(method_label(agent, variant) for variant in variants)
        columns += dict.fromkeys(published.get(agent, []))
    return pl.DataFrame(
        [
            {"domain": name} | {column: entries.get(column, MISSING) for column in columns}
            for name, entries in view.items()
        ]
    )


def phase_view(table: FinalTable) -> pl.DataFrame:
    """Final and best success of both phases side by side, a line per domain and method, as text.

    Empty unless there is an online phase. A method without one of the phases has a dash there.
    """
    trained = table.domains.filter(pl.col("phase") != Phase.PRETRAIN)
    if Phase.ONLINE not in trained["phase"]:
        return pl.DataFrame()
    several = trained["suite"].n_unique() > 1
    view: dict[tuple[str, str], dict[str, str]] = {}
    for row in trained.iter_rows(named=True):
        name = f"{row['suite']}: {row['domain']}" if several else row["domain"]
        entry = view.setdefault((name, method_label(row["agent"], row["variant"])), {})
        entry[f"{row['phase']} %"] = percent(row["success"], row["success_std"])
        entry[f"{row['phase']}, best %"] = percent(row["best"], row["best_std"])
        entry["seeds"] = str(row["seeds"] or 0)
    columns = [f"{phase}{best} %" for phase in PHASES[1:] for best in ("", ", best")]
    return pl.DataFrame(
        [
            {"domain": domain, "method": method}
            | {column: entry.get(column, MISSING) for column in (*columns, "seeds")}
            for (domain, method), entry in view.items()
        ]
    )


def aggregate_view(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `aggregate_table` of one suite and phase, as text."""
    return pl.DataFrame(
        {
            "method": row["method"],
            "tasks": str(row["tasks"]),
            "runs": str(row["runs"]),
            "mean %": percent(row["mean"]),
            "mean, 95 %": _ends(row["mean_low"], row["mean_high"]),
            "interquartile mean %": percent(row["iqm"]),
            "interquartile mean, 95 %": _ends(row["iqm_low"], row["iqm_high"]),
        }
        for row in rows.iter_rows(named=True)
    )


def improvement_view(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of `pairs_table` of one suite and phase, as text."""
    return pl.DataFrame(
        {
            "pair": f"{row['first']} > {row['second']}",
            "tasks": str(row["tasks"]),
            "probability %": percent(row["probability"]),
            "95 %": _ends(row["probability_low"], row["probability_high"]),
            "mean difference": f"{100 * row['difference']:+.1f}",
            "p": MISSING if row["p"] is None else f"{row['p']:.2g}",
            "p, corrected": MISSING if row["p_corrected"] is None else f"{row['p_corrected']:.2g}",
            "says": row["says"],
        }
        for row in rows.iter_rows(named=True)
    )


def markdown_table(view: pl.DataFrame) -> str:
    """A table of text as GitHub Markdown."""
    lines = [view.columns, ["---"] * view.width, *view.iter_rows()]
    return "".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


def print_table(table: FinalTable, console: Console | None = None) -> None:
    """Prints tasks, domains (where there is more than one task) and notes.

    Args:
        table: what to print.
        console: where to; standard output by default.
    """
    console = standard_output() if console is None else console
    for (suite, domain), tasks in table.tasks.partition_by(
        ["suite", "domain"], as_dict=True, maintain_order=True
    ).items():
        view = task_view(table, tasks)
        view = view.with_columns(pl.col("task").str.replace(r"^.*-(task\d+)$", "$1"))
        title = f"{suite}: {domain}"
        if view["phase"].n_unique() == 1:
            title += f", {view['phase'][0]}"
            view = view.drop("phase")
        print_view(console, view, title)
    if table.tasks["task"].n_unique() > 1:
        for phase in phases(table):
            title = f"By domain, {phase}, success %"
            for view in _columns_that_fit(domain_view(table, phase), console.width):
                print_view(console, view, title)
                title = f"By domain, {phase}, continued"
    if (both := phase_view(table)).height:
        print_view(console, both, "Offline and online, success %")
    console.print(f"{table.coverage} finished", markup=False)
    for note in table.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    for line in table.coverage.failed:
        console.print(f"failed: {line}", style="red", markup=False)


def write_table(
    table: FinalTable,
    directory: Path,
    aggregate: pl.DataFrame | None = None,
    pairs: pl.DataFrame | None = None,
) -> list[Path]:
    """Writes all tables as CSV and parquet, and all views as `results.md`.

    Args:
        table: the results.
        directory: where to.
        aggregate: `aggregate_table(table)`, if it is at hand.
        pairs: `pairs_table(table)`, if it is at hand.

    Returns:
        The files, in the order in which a reader wants them.

    Raises:
        OSError: the directory cannot be written.
    """
    text = [f"# Results: {table.coverage}\n\n", markdown_table(task_view(table))]
    for phase in phases(table):
        view = domain_view(table, phase)
        text.append(f"\n## By domain, {phase}, success % (mean ± std over seeds)\n\n")
        text.append(markdown_table(view))
    if (both := phase_view(table)).height:
        text.append("\n## Offline and online, success % (mean ± std over seeds)\n\n")
        text.append(markdown_table(both))
    aggregate = aggregate_table(table) if aggregate is None else aggregate
    pairs = pairs_table(table) if pairs is None else pairs
    for (suite, phase), rows in by_scope(aggregate):
        text.append(f"\n## Over all tasks of {suite}, {phase}\n\n")
        text.append(markdown_table(aggregate_view(rows)))
    for (suite, phase), rows in by_scope(pairs):
        text.append(f"\n## Which method is better on {suite}, {phase}\n\n")
        text.append(markdown_table(improvement_view(rows)))
    for title, lines in (
        ("Notes", table.notes),
        ("Failed", table.coverage.failed),
        ("Unfinished", table.coverage.unfinished),
    ):
        if lines:
            text.append(f"\n## {title}\n\n" + "".join(f"- {line}\n" for line in lines))
    written = [directory / "results.md"]
    write_bytes(written[0], "".join(text).encode())
    for name, frame in (
        ("tasks", table.tasks),
        ("domains", table.domains),
        ("cells", table.cells),
        ("aggregate", aggregate),
        ("pairs", pairs),
    ):
        content = {"csv": frame.write_csv().encode(), "parquet": _parquet(frame)}
        for kind, data in content.items():
            written.append(directory / f"{name}.{kind}")
            write_bytes(written[-1], data)
    return written


def _parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    return buffer.getvalue()


def by_scope(rows: pl.DataFrame) -> list[tuple[tuple[str, str], pl.DataFrame]]:
    """Rows of each suite and phase, in order."""
    parts = rows.partition_by("suite", "phase", as_dict=True, maintain_order=True)
    return [((str(suite), str(phase)), part) for (suite, phase), part in parts.items()]


def _ends(low: float | None, high: float | None) -> str:
    return MISSING if low is None else f"[{percent(low)}, {percent(high)}]"


def _seeds(row: dict[str, Any]) -> str:
    done, planned = row["runs"] or 0, row["runs_planned"]
    return str(done) if done == planned else f"{done}/{planned}"


def _kl(row: dict[str, Any]) -> str:
    if row["path_kl"] is None:
        return MISSING
    budget = MISSING if row["kl_budget"] is None else f"{row['kl_budget']:.3g}"
    return f"{row['path_kl']:.3g} / {budget}"


def _columns_that_fit(view: pl.DataFrame, width: int) -> list[pl.DataFrame]:
    """The view cut into several with the same first column, none wider than so many letters."""
    # Two letters between columns.
    widths = {name: 2 + _width(view, name) for name in view.columns}
    first, *others = view.columns
    parts: list[list[str]] = [[]]
    for name in others:
        if parts[-1] and sum(widths[n] for n in (first, *parts[-1], name)) > width - 2:
            parts.append([])
        parts[-1].append(name)
    return [view.select(first, *part) for part in parts]


def _width(view: pl.DataFrame, column: str) -> int:
    """Letters of a column whose long heading is broken between words, but none of its entries."""
    return max(min(12, len(column)), *map(len, [*column.split(), *view[column].to_list()]))


def print_view(console: Console, view: pl.DataFrame, title: str) -> None:
    """Prints a table of text."""
    # As `Text`: rich would take the brackets around a variant for markup.
    shown = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    for index, column in enumerate(view.columns):
        left = index == 0 or column in ("domain", "phase", "method")
        heading = textwrap.fill(column, _width(view, column), break_on_hyphens=False)
        shown.add_column(Text(heading), justify="left" if left else "right", overflow="fold")
    for line in view.iter_rows():
        shown.add_row(*map(Text, line))
    console.print(shown)
