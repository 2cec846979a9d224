"""`bench ablate dual`: what is measured of a path KL, and the command itself."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from bench.ablation.bandit import Bandit, WarmStart
from bench.ablation.tracking import RULES, Tracking, summary
from bench.agents import draw
from bench.cli import main
from qlearn import RandomStreams

TRACKING = Tracking(budget=0.5, updates=400, factor=10.0)


def curves(*values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> pl.DataFrame:
    """One rule, a seed per given KL over both phases."""
    return pl.concat(
        pl.DataFrame({"rule": "r", "seed": seed, "update": np.arange(len(kl)) + 1, "path_kl": kl})
        for seed, kl in enumerate(values)
    )


def test_a_ramp_reaches_the_band_and_stays() -> None:
    # Rises from 0 to the budget over 200 updates: 80 % of it is the mean of updates 149 to 173.
    ramp = 0.5 * np.minimum((np.arange(400) + 1) / 200, 1.0)
    start, after = summary(curves(np.concatenate([ramp, np.full(400, 0.65)])), TRACKING).to_dicts()
    assert 170 <= start["reached"] <= 174
    assert start["settled"] == start["reached"]
    assert start["mean"] == pytest.approx(1.0)
    assert start["error"] == pytest.approx(0.0, abs=1e-9)
    # 30 % above the budget is never inside a band of 20 %.
    assert (after["reached"], after["settled"]) == (None, None)
    assert after["peak"] == pytest.approx(1.3)
    assert after["error"] == pytest.approx(0.3)
    assert (after["settled_seeds"], after["seeds"]) == (0, 1)


def test_a_kl_that_leaves_again_has_reached_but_not_settled_then() -> None:
    kl = np.full(800, 0.5)
    kl[200:300] = 2.0
    start, after = summary(curves(kl), TRACKING).to_dicts()
    assert start["reached"] == 25
    assert 300 < start["settled"] <= 326
    assert start["peak"] == pytest.approx(4.0)
    assert after["settled"] == 25


def test_half_of_the_seeds_that_never_settle_leave_no_number() -> None:
    good, bad = np.full(800, 0.5), np.full(800, 5.0)
    row = summary(curves(good, bad, bad), TRACKING).row(0, named=True)
    assert row["settled"] is None
    assert row["settled_seeds"] == 1
    assert summary(curves(good, good, bad), TRACKING).row(0, named=True)["settled"] == 25


def test_critic_and_reference_are_held_while_lambda_moves() -> None:
    start = WarmStart.of(Bandit(batch_size=8), (0, 1), updates=3)
    agent = start.agent(kl_budget=0.5)
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    streams = RandomStreams((0, 1))
    for _ in range(3):
        agent.update(start.held(streams), draw(streams, agent.noise(8)))
    for key, value in agent.state_dict().items():
        moves = key.startswith(("fast.", "dual."))
        assert torch.equal(value, before[key]) != moves, key


@pytest.mark.slow
def test_the_command_writes_table_and_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ablate", "dual", "--budget", "100"]) == 2  # before any training
    assert "dual=solve needs" in capsys.readouterr().err
    assert main(["ablate", "internal-vs-external", "--dual", "solve", "--dry-run"]) == 2
    assert "leave out --dual solve" in capsys.readouterr().err
    out = tmp_path / "dual"
    command = ["ablate", "dual", "--updates", "30", "--warm-up", "10", "--seeds", "2"]
    assert main([*command, "--out", str(out)]) == 0
    table = pl.read_csv(out / "dual.csv")
    assert table["rule"].to_list() == [rule for rule in RULES for _ in range(2)]
    printed = capsys.readouterr().out
    assert "|" not in printed
    for line in (out / "dual.md").read_text(encoding="utf-8").splitlines()[2:]:
        for cell in line.strip("|").split("|"):
            assert cell.strip() in printed
    assert (out / "dual.png").read_bytes().startswith(b"\x89PNG")
    assert b"2 seeds: median and range" in (out / "dual.svg").read_bytes()
    found = pl.read_parquet(out / "curves.parquet")
    assert found.height == len(RULES) * 2 * 60
    # The critic's scale changed half-way: lambda follows where it is solved for, alone at once.
    lambdas = found.filter(rule="solve", seed=0)["lambda"].to_numpy()
    assert 5.0 < lambdas[-1] / lambdas[29] < 20.0
    held = found.filter(rule="fixed lambda")["lambda"]
    assert held.min() == held.max()


def test_impossible_values_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "dual", "--updates", "0"]) == 2
    assert main(["ablate", "dual", "--budget", "-1", "--warm-up", "1"]) == 2
    assert "positive" in capsys.readouterr().err
