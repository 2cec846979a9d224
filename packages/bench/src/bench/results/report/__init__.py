"""Figures and the HTML report. Apart from `bench.results` because drawing is slow to import."""

from __future__ import annotations

from bench.results.report._aggregate import aggregate_view, improvement_view
from bench.results.report._curves import Curve, success_curves, training_curves
from bench.results.report._figures import (
    bars,
    budget_sensitivity,
    curve_grid,
    profiles,
    rendered,
)
from bench.results.report._report import Report, write_report

__all__ = [
    "Curve",
    "Report",
    "aggregate_view",
    "bars",
    "budget_sensitivity",
    "curve_grid",
    "improvement_view",
    "profiles",
    "rendered",
    "success_curves",
    "training_curves",
    "write_report",
]
