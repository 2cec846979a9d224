"""Fail unless TRQAM reached a success rate in a run: `learned.py RUN RATE`."""

import sys
from pathlib import Path

import polars as pl

tasks = pl.read_parquet(Path(sys.argv[1]) / "tasks.parquet").filter(agent="trqam")
reached = tasks["success"].min()
print(f"TRQAM: {reached:.0%} at the least, {float(sys.argv[2]):.0%} wanted")
sys.exit(0 if reached >= float(sys.argv[2]) else 1)
