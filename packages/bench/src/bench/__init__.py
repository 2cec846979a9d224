"""Agents, data, training, evaluation and result tables for fine-tuning flow policies on OGBench.

The `bench` command is the way in (`bench --help`); `bench.agents` trains with torch alone.
"""
