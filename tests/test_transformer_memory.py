"""The updates whose memory docs/large-models.md compares have the same gradient."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[1] / "examples" / "transformer_memory.py"


def test_every_variant_has_the_same_gradient() -> None:
    specification = importlib.util.spec_from_file_location("transformer_memory", FILE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = example
    specification.loader.exec_module(example)
    assert 95e6 < example.parameters(768, 14) < 105e6
    with torch.random.fork_rng():
        norms = {name: example.update(name, 48, 2, 3)[2] for name in example.VARIANTS}
        single = {name: example.update(name, 48, 2, 1)[2] for name in ("naive", *example.SINGLE)}
    for name in ("lean", "accumulated", "checkpointed"):
        assert norms[name] == pytest.approx(norms["naive"], rel=1e-5)
    for name in example.SINGLE:
        assert single[name] == norms[name]
        assert single[name] == pytest.approx(single["naive"], rel=0.05)
    rows = [("naive", 200.0, 3.0, 1.0), ("checkpointed", 50.0, 9.0, 1.0)]
    assert "| the same, blocks checkpointed | 50 | 25% | 9 |" in example.format_table(rows)
