"""The savings of memory that docs/adjoint.md shows: same gradients, and the table itself."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    file = ROOT / "examples" / "adjoint_memory.py"
    specification = importlib.util.spec_from_file_location("adjoint_memory", file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def test_the_savings_agree_with_the_naive_way(example: ModuleType) -> None:
    sizes = example.Sizes(size=8, batch=2, steps=8, subset=2, width=16, blocks=4)
    results = example.measure(sizes)
    naive, lean, checkpointed, subset, chunked, single, both, one_graph, per_step = results
    for other in (lean, checkpointed, chunked, single, both):
        torch.testing.assert_close(other.gradient, naive.gradient, rtol=1e-4, atol=1e-4)
    # A random subset is unbiased, not equal.
    assert not torch.allclose(subset.gradient, naive.gradient, rtol=0.05)
    assert naive.peak >= lean.peak > checkpointed.peak
    assert lean.peak > chunked.peak > single.peak > both.peak > 0
    # A step at a time needs about 1/8 of the activations of 8 steps; paths and gradients remain.
    assert single.peak < 0.4 * naive.peak
    assert per_step.peak < 0.4 * one_graph.peak
    assert "100%" in example.format_table(results)


def test_peak_memory_counts_what_is_alive(example: ModuleType) -> None:
    with example.PeakMemory() as memory:
        kept = torch.zeros(256)
        for _ in range(3):
            torch.ones(1024).sum()
        view = kept[:4].view(2, 2)
        view.add_(1.0)
    assert memory.live == 4 * 256
    # A block of 1024 numbers beside the kept one, and the sum's single number.
    assert memory.peak == 4 * (256 + 1024 + 1)


@pytest.mark.slow
def test_the_table_in_the_docs_is_what_the_command_prints(example: ModuleType) -> None:
    text = (ROOT / "docs" / "adjoint.md").read_text(encoding="utf-8")
    for result in example.measure(example.Sizes()):
        (shown,) = re.findall(re.escape(f"| {result.name} | ") + r"([\d.]+) \|", text)
        # Libraries differ in what they allocate within a convolution.
        assert abs(result.peak / 2**20 / float(shown) - 1.0) < 0.15, result.name
