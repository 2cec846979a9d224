"""Curves in TensorBoard and Weights & Biases, beside the tables and off by default.

The tables are what reports read; trackers only show them while a run goes on. Nothing here is
imported unless a tracker was asked for, and `require` says what is missing before anything runs.
"""

from __future__ import annotations

from bench.tracking._curves import Curves, require
from bench.tracking._tracker import TrackedCell, Tracker

__all__ = ["Curves", "TrackedCell", "Tracker", "require"]
