"""The report: every number on the page is a number of the tables, and it opens in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from bench.agents import AGENTS
from bench.errors import ResultsError
from bench.results import (
    ResultWriter,
    aggregate_table,
    aggregate_view,
    cell_results,
    domain_view,
    final_table,
    improvement_view,
    labelled_evaluations,
    markdown_table,
    pairs_table,
    phase_view,
    task_view,
)
from bench.results.report import (
    Curve,
    Report,
    curve_grid,
    looks_of,
    sensitivity,
    success_curves,
    sweeps_of,
    training_curves,
    write_report,
)
from bench.storage import PlannedCell, RunRecord, collect_provenance, write_run

from .make_runs import cell, evaluation, make_run

METHODS = {"trqam": 44, "qam": 30, "fql": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `quick` with three seeds and four methods, one of which ends with pretraining."""
    directory = tmp_path_factory.mktemp("runs")
    results = [
        (cell(task, seed, agent), {0: task, 50: final // 2 + seed, 100: final + seed - task})
        for agent, final in METHODS.items()
        for task in range(1, 6)
        for seed in range(3)
    ]
    make_run(directory / "main", results, settings={"note": "<script>alert('no')</script> & co"})
    cloned = [cell(task, seed, "bc") for task in range(1, 6) for seed in range(3)]
    planned = [PlannedCell(**of, final_steps={"pretrain": 60}, pack="bc") for of in cloned]
    write_run(directory / "bc", RunRecord(["bench"], {}, collect_provenance([]), planned))
    nothing = {"path_kl": None, "kl_budget": None, "lambda": None, "phase": "pretrain"}
    ResultWriter(directory / "bc" / "packs" / "bc" / "evaluations.parquet").append(
        [evaluation(of, 60, of["seed"]) | nothing for of in cloned]
    )
    return directory


@pytest.fixture(scope="module")
def report(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return write_report([runs], tmp_path_factory.mktemp("report"))


class TableReader(HTMLParser):
    """Headings, tables (rows of texts) and what the page would load from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self._text: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._text = []
        if tag in ("script", "link", "img", "iframe", "object"):
            self.loaded.append(tag)
        self.loaded += [
            value for name, value in attrs
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#")
        ]  # fmt: skip
        if names.get("id"):
            self.ids.append(str(names["id"]))

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._text is not None:
            self.tables[-1][-1].append("".join(self._text).strip())
            self._text = None


def read_page(report: Report) -> TableReader:
    reader = TableReader()
    reader.feed(report.page.read_text(encoding="utf-8"))
    return reader


def as_lists(view: pl.DataFrame) -> list[list[str]]:
    return [view.columns, *map(list, view.iter_rows())]


def test_the_tables_on_the_page_are_the_tables(report: Report) -> None:
    tables = read_page(report).tables
    for view in (
        domain_view(report.table, "offline"),
        task_view(report.table),
        aggregate_view(aggregate_table(report.table)),
        improvement_view(pairs_table(report.table)),
    ):
        assert as_lists(view) in tables


def test_the_numbers_on_the_page_are_those_of_the_csv(report: Report) -> None:
    stored = pl.read_csv(report.page.parent / "tasks.csv")
    shown = next(table for table in read_page(report).tables if table[0][:2] == ["task", "phase"])
    assert len(shown) - 1 == stored.height == 20
    for line, row in zip(shown[1:], stored.iter_rows(named=True), strict=True):
        success, _, spread = line[3].partition(" ± ")
        assert float(success) == pytest.approx(100 * row["success"], abs=0.051)
        assert float(spread) == pytest.approx(100 * row["success_std"], abs=0.051)
        low, high = map(float, line[4].strip("[]").split(", "))
        assert low == pytest.approx(100 * row["success_low"], abs=0.051)
        assert high == pytest.approx(100 * row["success_high"], abs=0.051)
        assert int(line[7]) == row["episodes"] == 150


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_statistics_on_the_page_are_those_of_the_files(report: Report, suffix: str) -> None:
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet}[suffix]
    folder = report.page.parent
    tables = read_page(report).tables

    def shown_as(text: str, value: float) -> bool:
        return float(text) == pytest.approx(100 * value, abs=0.051)

    def ends_as(text: str, low: float, high: float) -> bool:
        return all(map(shown_as, text.strip("[]").split(", "), (low, high)))

    stored = read(folder / f"aggregate.{suffix}")
    assert stored["method"].to_list() == ["bc", "fql", "qam", "trqam"]
    shown = next(table for table in tables if "interquartile mean %" in table[0])
    for line, row in zip(shown[1:], stored.iter_rows(named=True), strict=True):
        assert line[:3] == [row["method"], str(row["tasks"]), str(row["runs"])]
        assert shown_as(line[3], row["mean"])
        assert ends_as(line[4], row["mean_low"], row["mean_high"])
        assert shown_as(line[5], row["iqm"])
        assert ends_as(line[6], row["iqm_low"], row["iqm_high"])
    stored = read(folder / f"pairs.{suffix}")
    assert stored.height == 6
    shown = next(table for table in tables if table[0][0] == "pair")
    for line, row in zip(shown[1:], stored.iter_rows(named=True), strict=True):
        assert line[0] == f"{row['first']} > {row['second']}"
        assert shown_as(line[2], row["probability"])
        assert ends_as(line[3], row["probability_low"], row["probability_high"])
        assert shown_as(line[4], row["difference"])
        assert [float(text) for text in line[5:7]] == pytest.approx(
            [row["p"], row["p_corrected"]], rel=0.051
        )
        assert line[7] == row["says"]
    markdown = (folder / "results.md").read_text()
    assert markdown_table(improvement_view(stored)) in markdown
    assert markdown_table(aggregate_view(read(folder / f"aggregate.{suffix}"))) in markdown


def test_a_task_of_the_page_computed_by_hand(report: Report) -> None:
    # trqam, task 2: 42, 43, 44 of 50.
    row = task_view(report.table).filter(method="trqam", task="pointmaze-medium-navigate-task2")
    assert row["success %"].item() == "86.0 ± 2.0"
    assert row["95 %"].item() == "[84.0, 88.0]"


def test_the_page_needs_nothing_else_and_executes_nothing(report: Report) -> None:
    page = read_page(report)
    assert page.loaded == []
    assert len(page.ids) == len(set(page.ids)) > 20
    text = report.page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert" in text
    for drawing in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        for reference in re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", drawing):
            assert f'id="{reference}"' in drawing
    assert text.count("<svg") == 5


def test_every_figure_is_written_as_svg_and_png(report: Report) -> None:
    folder = report.page.parent
    names = {path.stem for path in folder.glob("*.svg")}
    assert names == {
        "learning-curves", "path-kl", "lambda", "domains-offline",
        "performance-profile-quick-offline",
    }  # fmt: skip
    assert names == {path.stem for path in folder.glob("*.png")}
    for name in names:
        assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "trqam" in (folder / "learning-curves.svg").read_text(encoding="utf-8")
    assert set(report.files) == {path for path in folder.iterdir() if path.name[0] != "."}


def test_making_it_again_changes_nothing_but_the_date(
    runs: Path, report: Report, tmp_path: Path
) -> None:
    again = write_report([runs], tmp_path)
    for first, second in zip(report.files[1:], again.files[1:], strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()


def find_browser() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next((path for path in map(shutil.which, names) if path), None)


@pytest.mark.skipif(find_browser() is None, reason="no Chromium or Chrome on this machine")
def test_the_page_opens_in_a_browser_without_a_network(report: Report, tmp_path: Path) -> None:
    browser = find_browser()
    assert browser is not None
    picture = tmp_path / "page.png"
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--window-size=1200,3000", f"--user-data-dir={tmp_path / 'profile'}",
        "--proxy-server=127.0.0.1:9",  # nobody listens there: what is fetched, fails
    ]  # fmt: skip
    page = report.page.as_uri()
    shown = subprocess.run(
        [browser, *options, "--dump-dom", page], capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0
    reader = TableReader()
    reader.feed(shown.stdout)
    assert as_lists(task_view(report.table)) in reader.tables
    subprocess.run(
        [browser, *options, f"--screenshot={picture}", page],
        capture_output=True,
        check=True,
        timeout=120,
    )
    from matplotlib.image import imread

    pixels = imread(picture)[..., :3]
    assert pixels.shape[0] > 2000
    # Text and lines on white, and somewhere the colours of the figures.
    assert 0.8 < (pixels.min(axis=-1) > 0.99).mean() < 0.999
    assert ((pixels.max(axis=-1) - pixels.min(axis=-1)) > 0.5).sum() > 500


def test_learning_curves_use_steps_that_all_runs_have_reached(tmp_path: Path) -> None:
    make_run(tmp_path, [(cell(1, 0), {0: 0, 50: 20, 100: 40}), (cell(1, 1), {0: 10, 50: 30})])
    cells = cell_results([tmp_path])
    (curve,) = success_curves(labelled_evaluations([tmp_path]), cells)
    assert curve.panel == "pointmaze-medium-navigate-task1"
    assert curve.steps.tolist() == [0, 50]
    assert curve.value == pytest.approx([0.1, 0.5])
    assert (curve.low <= curve.value).all()
    assert (curve.high >= curve.value).all()
    assert curve.runs == 2


def test_the_online_phase_follows_the_offline_phase(tmp_path: Path) -> None:
    run = make_run(tmp_path, [(cell(), {50: 10, 100: 20})])
    of = cell()
    ends = {"offline": 100, "online": 30}
    plan = [PlannedCell(**of, final_steps=ends, pack="pack")]
    write_run(run, RunRecord(["bench"], {}, collect_provenance([]), plan))
    ResultWriter(run / "packs" / "pack" / "evaluations.parquet").append(
        [evaluation(of, step, 40, phase="online") for step in (0, 30)]
    )
    cells = cell_results([run])
    (curve,) = success_curves(labelled_evaluations([run]), cells)
    # Offline 100 and online 0 are the same place on the axis.
    assert curve.steps.tolist() == [50, 100, 100, 130]
    assert curve.value == pytest.approx([0.2, 0.4, 0.8, 0.8])
    online = domain_view(write_report([run], tmp_path / "report").table, "online")
    assert online["trqam"].to_list() == ["80.0"]


def test_training_curves_average_runs_and_leave_out_what_is_not_finite(tmp_path: Path) -> None:
    from bench.results import TRAINING, metric_rows

    writer = ResultWriter(tmp_path / "packs" / "p" / "training.parquet", TRAINING)
    for seed, value in ((0, 1.0), (1, 3.0), (2, float("nan"))):
        writer.append(metric_rows(cell(seed=seed), "offline", 10, {"lambda": value}))
    ResultWriter(tmp_path / "packs" / "p" / "evaluations.parquet").append(
        [evaluation(cell(seed=seed), 10, 1) for seed in (0, 1, 2)]
    )
    cells = cell_results([tmp_path])
    (curve,) = training_curves([tmp_path], cells, "lambda")
    assert (curve.value.item(), curve.low.item(), curve.high.item()) == (2.0, 1.0, 3.0)
    assert curve.runs == 2
    assert training_curves([tmp_path], cells, "nothing") == []


def dotted(axis: Axes) -> dict[str, list[list[float]]]:
    """Heights of the dotted lines of a panel by their colour."""
    found: dict[str, list[list[float]]] = {}
    for line in axis.lines:
        if line.get_linestyle() == ":" and len(heights := np.asarray(line.get_ydata())):
            found.setdefault(str(line.get_color()), []).append(heights.tolist())
    return found


def test_the_budget_is_drawn_as_it_was_logged(tmp_path: Path) -> None:
    changed = {0: 0.4, 50: 1.0}
    make_run(tmp_path / "a", [(cell(seed=0), {100: 10})], budgets=changed, kl_budget=1.0)
    figure = kl_figure([tmp_path])
    assert dotted(figure.axes[0]) == {"black": [[0.4] * 5 + [1.0] * 6]}
    # Another run of the method with another budget: both ends; and of another method: its colour.
    make_run(tmp_path / "b", [(cell(seed=1), {100: 10})], budgets={0: 0.2}, kl_budget=0.2)
    make_run(tmp_path / "c", [(cell(agent="qam"), {100: 10})], budgets={0: 3.0}, kl_budget=3.0)
    lines = dotted(kl_figure([tmp_path]).axes[0])
    looks = looks_of(["qam", "trqam"])
    assert lines == {
        looks["trqam"][0]: [[0.2] * 11, [0.4] * 5 + [1.0] * 6],
        looks["qam"][0]: [[3.0] * 11],
    }


def test_a_fixed_lambda_has_no_budget_to_draw(tmp_path: Path) -> None:
    packs = {"packs": {"pack": {"agent": "trqam", "settings": {"dual_rate": 0.0}}}}
    make_run(tmp_path, [(cell(), {100: 10})], settings=packs)
    assert training_curves([tmp_path], cell_results([tmp_path]), "kl_budget") == []
    assert training_curves([tmp_path], cell_results([tmp_path]), "path_kl") != []


@pytest.mark.parametrize("panels", [1, 5])
def test_a_long_legend_takes_no_room_from_the_panels(panels: int) -> None:
    def heights(names: list[str]) -> tuple[float, list[float]]:
        line = np.array([0.0, 1.0])
        curves = [
            Curve(f"panel {panel}", name, line, line, line, line, 1, "none")
            for panel in range(panels)
            for name in names
        ]
        figure = curve_grid(curves, "y", looks_of(names), note="seeds: 3")
        figure.canvas.draw()
        legend = figure.legends[0].get_window_extent()
        width, height = figure.get_size_inches() * figure.dpi
        assert 0 <= legend.x0 < legend.x1 <= width
        assert 0 <= legend.y0 < legend.y1 < height
        return height, [axis.get_window_extent().height for axis in figure.axes]

    figure_height, before = heights(["trqam"])
    many = [f"trqam [trust-region=external, temperature=0.{i}, lambda-initial=0.3, dual-rate=0]"
            for i in range(12)]  # fmt: skip
    taller, after = heights(many)
    assert taller > figure_height
    assert min(after) > 0.9 * min(before)


def kl_figure(runs: list[Path]) -> Figure:
    cells = cell_results(runs)
    kl, budget = (training_curves(runs, cells, metric) for metric in ("path_kl", "kl_budget"))
    looks = looks_of(sorted({curve.method for curve in kl}))
    return curve_grid(kl, "path KL", looks, levels=budget, level_label="KL budget")


def test_long_training_curves_are_thinned(tmp_path: Path) -> None:
    from bench.results import TRAINING, metric_rows

    writer = ResultWriter(tmp_path / "packs" / "p" / "training.parquet", TRAINING)
    for step in range(5_000):
        writer.append(metric_rows(cell(), "offline", step, {"loss": float(step)}), flush=False)
    writer.flush()
    ResultWriter(tmp_path / "packs" / "p" / "evaluations.parquet").append(
        [evaluation(cell(), 10, 1)]
    )
    (curve,) = training_curves([tmp_path], cell_results([tmp_path]), "loss")
    assert 150 <= len(curve.steps) <= 250
    assert np.all(np.diff(curve.value) > 0)


def test_a_sweep_over_budgets_gets_its_figure(tmp_path: Path) -> None:
    for budget, successes in ((0.1, 10), (0.3, 30), (1.0, 20)):
        of = cell() | {"variant": f"kl-budget={budget}"}
        make_run(tmp_path / str(budget), [(of, {100: successes})], kl_budget=budget)
    report = write_report([tmp_path], tmp_path / "report")
    assert (tmp_path / "report" / "success-against-kl-budget.svg").exists()
    (sweep,) = sweeps_of(report.table.domains)
    assert sweep.label == "KL budget"
    line = sensitivity(sweep).axes[0].lines[0]
    assert line.get_xydata() == pytest.approx(np.array([[0.1, 20], [0.3, 60], [1.0, 40]]))
    methods = domain_view(report.table, "offline").columns
    assert methods[1:] == [f"trqam [kl-budget={budget}]" for budget in (0.1, 0.3, 1.0)]


def test_a_grid_has_a_line_for_every_value_of_the_other_setting(tmp_path: Path) -> None:
    grid = {(budget, rate): int(20 * budget + rate) for budget in (0.5, 1.0) for rate in (1, 2, 3)}
    for (budget, rate), successes in grid.items():
        of = cell() | {"variant": f"kl-budget={budget}, learning-rate={rate}"}
        make_run(tmp_path / f"{budget}-{rate}", [(of, {100: successes})], kl_budget=budget)
    swept = cell(agent="fql") | {"variant": "actor-hidden=8x8"}
    make_run(tmp_path / "fql", [(swept, {100: 10})])
    sweeps = {s.setting: s for s in sweeps_of(final_table([tmp_path]).domains)}
    assert set(sweeps) == {"kl-budget", "learning-rate"}
    domain = "pointmaze-medium-navigate"
    lines = sweeps["learning-rate"].lines
    assert set(lines) == {f"{domain}, trqam [kl-budget={budget}]" for budget in (0.5, 1.0)}
    for budget in (0.5, 1.0):
        line = lines[f"{domain}, trqam [kl-budget={budget}]"]
        assert line["value"].to_list() == [1, 2, 3]
        assert line["success"].to_list() == [grid[budget, rate] / 50 for rate in (1, 2, 3)]
    assert len(sweeps["kl-budget"].lines) == 3


def test_a_method_has_one_colour_in_all_figures(report: Report) -> None:
    methods = sorted([*METHODS, "bc"])
    looks = looks_of(methods)
    assert len(set(looks_of(list(map(str, range(48)))).values())) == 48
    assert looks_of(["trqam", "new", "trqam [kl-budget=1]"])["trqam"] == looks["trqam"]
    folder = report.page.parent
    for name in ("learning-curves", "path-kl", "lambda"):
        text = (folder / f"{name}.svg").read_text(encoding="utf-8").lower()
        for method in METHODS:
            assert looks[method][0].lower() in text
        # Only behaviour cloning has no trust region.
        assert (looks["bc"][0].lower() in text) == (name == "learning-curves")


def test_every_agent_has_a_colour_of_its_own() -> None:
    """Apart by 25 in CIELAB, where 2 can just be told; a variant takes no agent's."""
    names = [*AGENTS, "trqam [kl-budget=1]"]
    looks = looks_of(names)
    assert {dash for _, dash in looks.values()} == {"solid"}
    colours = np.array([lab(looks[name][0]) for name in names])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    assert apart[np.triu_indices(len(names), 1)].min() > 25
    # Not by its place among those that happen to be there.
    for name in AGENTS:
        assert looks_of([name]) == {name: looks[name]}


def lab(colour: str) -> np.ndarray:
    """CIELAB of an sRGB colour (D65)."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    scaled = np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089]
    x, y, z = np.where(scaled > 0.008856, np.cbrt(scaled), 7.787 * scaled + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_figure_says_what_it_rests_on(report: Report) -> None:
    for file in report.page.parent.glob("*.svg"):
        assert "seeds per task: 3; episodes per evaluation and seed: 50" in file.read_text("utf-8")


def test_both_phases_stand_side_by_side(tmp_path: Path) -> None:
    ends = {"offline": 100, "online": 30}
    cells = [cell(seed=seed) for seed in (0, 1)]
    run = make_run(tmp_path, [(of, {50: 45, 100: 20 + 10 * of["seed"]}) for of in cells])
    plan = [PlannedCell(**of, final_steps=ends, pack="pack") for of in cells]
    write_run(run, RunRecord(["bench"], {}, collect_provenance([]), plan))
    ResultWriter(run / "packs" / "pack" / "evaluations.parquet").append(
        [evaluation(of, step, 40 + step // 3, phase="online") for of in cells for step in (3, 30)]
    )
    report = write_report([run], tmp_path / "report")
    both = phase_view(report.table)
    assert both.row(0, named=True) == {
        "domain": "pointmaze-medium-navigate",
        "method": "trqam",
        "offline %": "50.0 ± 14.1",
        "offline, best %": "90.0 ± 0.0",
        "online %": "100.0 ± 0.0",
        "online, best %": "100.0 ± 0.0",
        "seeds": "2",
    }
    assert as_lists(both) in read_page(report).tables
    assert "Offline and online" in (tmp_path / "report" / "results.md").read_text()
    svg = (tmp_path / "report" / "learning-curves.svg").read_text(encoding="utf-8")
    assert "environment steps online" in svg


def test_one_seed_makes_no_claim(tmp_path: Path) -> None:
    make_run(tmp_path, [(cell(1, 0, agent), {100: n}) for agent, n in METHODS.items()])
    table = write_report([tmp_path], tmp_path / "report").table
    pairs = improvement_view(pairs_table(table))
    assert set(pairs["says"]) == {"one seed: no claim"}
    assert set(pairs["p, corrected"]) == {"–"}
    assert set(aggregate_view(aggregate_table(table))["mean, 95 %"]) == {"–"}


def test_a_pair_is_decided_only_if_the_permutation_test_agrees(tmp_path: Path) -> None:
    # Two seeds a side on one task: of the six relabellings two are as extreme, so p is 1/3, while
    # every resample has the same winner.
    make_run(tmp_path / "few", [(cell(1, s, a), {100: n}) for s in (0, 1)
                                for a, n in (("trqam", 40), ("qam", 10))])  # fmt: skip
    pairs = improvement_view(pairs_table(final_table([tmp_path / "few"])))
    assert pairs["probability %"].to_list() == ["0.0"]
    assert pairs["95 %"].to_list() == ["[0.0, 0.0]"]
    assert float(pairs["p, corrected"].item()) == pytest.approx(1 / 3, abs=0.02)
    assert pairs["says"].to_list() == ["open"]
    make_run(tmp_path / "many", [(cell(1, s, a), {100: n + s}) for s in range(6)
                                 for a, n in (("trqam", 40), ("qam", 10))])  # fmt: skip
    pairs = improvement_view(pairs_table(final_table([tmp_path / "many"])))
    assert pairs["says"].to_list() == ["trqam is better"]
    # Of 20 relabellings of three against three, two are as extreme: 0.1, twice for two tasks 0.005.
    finals = {"a": 0, "b": 10, "c": 20, "d": 30, "e": 40, "f": 46}
    runs = [
        (cell(t, s, agent), {100: final + s})
        for t in (1, 2)
        for s in range(3)
        for agent, final in finals.items()
    ]
    make_run(tmp_path / "pairs", runs)
    pairs = improvement_view(pairs_table(final_table([tmp_path / "pairs"])))
    assert len(pairs) == 15
    assert [float(p) for p in pairs["p"]] == pytest.approx([0.005] * 15, abs=0.002)
    assert all(says.endswith("is probably better") for says in pairs["says"])


def test_a_report_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="no evaluations"):
        write_report([tmp_path], tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_a_report_of_what_has_not_begun_counts_it(tmp_path: Path) -> None:
    planned = [PlannedCell(**cell(), final_steps={"offline": 100}, pack="pack")]
    write_run(tmp_path, RunRecord(["bench"], {}, collect_provenance([]), planned))
    report = write_report([tmp_path], tmp_path / "report")
    assert "0/1 tasks, 0/1 runs" in report.page.read_text(encoding="utf-8")
