"""Instruction sets: the same arithmetic with and without native bfloat16 products."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.training import precision

ROOT = Path(__file__).parents[3]
PROGRAM = """
import json, sys, torch
from bench.speed.__main__ import main
from qlearn import has_bfloat16_products
sys.path.insert(0, sys.argv[1])
from tests.bench.agents.small_agents import build, train

status = main([
    "--agents", "bc", "--widths", "8", "--batch", "4", "--seconds", "0.01", "--turns", "1",
    "--device", "cpu", "--threads", "1", "--precisions", "float32", "bfloat16",
])
moved = {}
for precision in ("float32", "bfloat16"):
    agent = build("trqam", [0], learning_rate=1e-2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        train(agent, [0], 6)
    moved[precision] = torch.cat([p.detach().flatten() for p in agent.parameters()]).tolist()
print(json.dumps({"status": status, "native": has_bfloat16_products(), "moved": moved}))
"""


def tier(**limits: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(ROOT)],
        capture_output=True, text=True, check=True, env={**os.environ, **limits},
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def distance(one: list[float], other: list[float]) -> float:
    return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) ** 0.5)


@pytest.mark.slow
def test_bfloat16_is_the_same_arithmetic_with_and_without_avx_512() -> None:
    limited, warned = tier(ONEDNN_MAX_CPU_ISA="AVX2", ATEN_CPU_CAPABILITY="avx2")
    here, _ = tier()
    assert limited["status"] == here["status"] == 0
    assert not limited["native"]
    assert "emulated" in warned
    rounding = distance(limited["moved"]["float32"], limited["moved"]["bfloat16"])
    assert rounding > 0.0
    # Sums in another order round a few numbers the other way, no more than that.
    assert distance(limited["moved"]["bfloat16"], here["moved"]["bfloat16"]) < 0.5 * rounding


def test_a_run_says_that_its_precision_is_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16_products", lambda native=native: native)
        for name in ("float32", "bfloat16"):
            warning = precision.emulation_warning(name, torch.device("cpu"))
            assert (warning is not None) == (name == "bfloat16" and not native)
    assert precision.emulation_warning("bfloat16", torch.device("cuda")) is None
