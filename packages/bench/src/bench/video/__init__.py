"""Rollouts of a trained policy as GIF, WebP, APNG or MP4, on machines without a display too."""

from __future__ import annotations

from bench.video._render import RENDERERS, record
from bench.video._rollout import Rollout, play
from bench.video._select import SelectedCell, select_cells

__all__ = ["RENDERERS", "Rollout", "SelectedCell", "play", "record", "select_cells"]
