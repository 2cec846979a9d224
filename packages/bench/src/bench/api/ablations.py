"""Comparisons of parts of TRQAM with what they replace, of settings, and of data."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl
from rich.console import Console

from bench.ablation.commands import (
    SuiteAblation,
    dual,
    kernels,
    plan_ablation,
    sqam,
    trust_region,
)
from bench.ablation.data_quality import data_quality
from bench.ablation.sensitivity import sensitivity
from bench.ablation.writing import as_text
from bench.api.progress import Progress, progress_console
from bench.api.results import RunResult
from bench.api.runs import trained
from bench.api.state import process_state_kept
from bench.experiment import (
    DataRequest,
    DualRequest,
    InternalVsExternalRequest,
    KernelsRequest,
    SensitivityRequest,
    SqamRequest,
    build_request,
    command_line,
)
from bench.results import print_view
from bench.terminal import standard_output
from bench.training.job import Job

__all__ = ["AblationResult", "ablate"]

AblationName = Literal["dual", "internal-vs-external", "kernels", "sqam", "sensitivity", "data"]


@dataclass(frozen=True, slots=True)
class AblationResult:
    """Table and figure of an ablation.

    Attributes:
        table: a row per point.
        files: table and figure, `.md` first.
        run: the runs behind it; None where there were none.
    """

    table: pl.DataFrame
    files: tuple[Path, ...]
    run: RunResult | None = None

    @property
    def complete(self) -> bool:
        """Whether every run has reached its end."""
        return self.run is None or self.run.complete

    def show(self, console: Console | None = None) -> None:
        """Print the table and where it lies."""
        console = console or standard_output(markup=False, highlight=False)
        place = self.files[0].with_suffix("")
        print_view(console, as_text(self.table), place.name)
        kinds = ", ".join(file.suffix for file in self.files)
        console.print(f"table and figure: {place}{kinds}", markup=False, soft_wrap=True)

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def ablate(
    what: AblationName,
    request: DualRequest | SuiteAblation | None = None,
    /,
    *,
    progress: Progress = "auto",
    **options: Any,
) -> AblationResult:
    """Compare a part of TRQAM with what it replaces, settings of an agent, or kinds of data.

    Args:
        what: `dual` (rules for lambda, on a made-up bandit), `internal-vs-external` (kinds of
            trust region), `kernels` (discretisations of the memoryless SDE), `sqam` (estimator of
            the adjoint and value penalty), `sensitivity` (one setting changed at a time) or `data`
            (the same tasks from data of several kinds).
        request: what to do; or give its fields as keyword arguments.
        progress: as in :func:`offline`.
        **options: fields of :class:`bench.DualRequest`, :class:`bench.InternalVsExternalRequest`,
            :class:`bench.KernelsRequest`, :class:`bench.SqamRequest`,
            :class:`bench.SensitivityRequest` or :class:`bench.DataRequest`.

    Raises:
        TypeError: an option that there is not.
        ValueError: no such ablation, or an impossible value.
        BenchError: as :func:`offline`.
    """
    kinds: dict[str, type[Any]] = {
        "dual": DualRequest,
        "internal-vs-external": InternalVsExternalRequest,
        "kernels": KernelsRequest,
        "sqam": SqamRequest,
        "sensitivity": SensitivityRequest,
        "data": DataRequest,
    }
    if what not in kinds:
        raise ValueError(f"the ablations are {', '.join(kinds)}; got {what!r}")
    asked = build_request(kinds[what], request, options)
    with process_state_kept():
        if isinstance(asked, DualRequest):
            return AblationResult(*dual(asked))
        plan = plan_ablation(asked)
        command = command_line(["bench", "ablate", what], asked)
        job = Job(plan, command, progress_console(progress))
        job.run()
    written = {
        "internal-vs-external": trust_region,
        "kernels": kernels,
        "sqam": sqam,
        "sensitivity": sensitivity,
        "data": data_quality,
    }
    table, files = written[what](plan.directory)
    return AblationResult(table, files, trained(job))
