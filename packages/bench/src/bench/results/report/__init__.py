"""Figures and the HTML report. Apart from `bench.results` because drawing is slow to import."""

from __future__ import annotations

from bench.results.report._curves import Curve, success_curves, training_curves
from bench.results.report._figures import bars, curve_grid, profiles
from bench.results.report._report import Report, write_report
from bench.results.report._sensitivity import Sweep, sensitivity, sweeps_of
from bench.results.report._style import Looks, looks_of, rendered

__all__ = [
    "Curve",
    "Looks",
    "Report",
    "Sweep",
    "bars",
    "curve_grid",
    "looks_of",
    "profiles",
    "rendered",
    "sensitivity",
    "success_curves",
    "sweeps_of",
    "training_curves",
    "write_report",
]
