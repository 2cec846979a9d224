"""The monitor tells hacking and collapse from noise, draws them, and goes on from its state."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trustregion import RewardMonitor, sample_spread


def run(
    reward: Callable[[int], float],
    held_out: Callable[[int], float],
    diversity: Callable[[int], float] = lambda update: 1.0,
    seed: int = 0,
) -> tuple[RewardMonitor, list[tuple[str, ...]]]:
    """A hundred updates of 32 samples whose rewards have a standard deviation of 1."""
    generator, monitor = torch.Generator().manual_seed(seed), RewardMonitor()
    alerts = []
    for update in range(100):
        first, second = torch.randn(2, 32, generator=generator)
        alerts.append(
            monitor.update(
                reward(update) + first, held_out(update) + second, kl=0.01 * update,
                diversity=diversity(update),
            )
        )  # fmt: skip
    return monitor, alerts


def test_a_reward_that_is_hacked_is_told_and_noise_is_not() -> None:
    monitor, alerts = run(lambda k: 0.03 * k, lambda k: 0.02 * k if k < 50 else 2.0 - 0.02 * k)
    first = alerts.index(("hacking",))
    assert 60 < first < 80
    assert all(alert == ("hacking",) for alert in alerts[first + 5 :])
    assert not any(alerts[:first])
    best = monitor.best_update
    assert best is not None
    assert 45 <= best <= 65
    for seed in range(5):
        # Both rise; both stand still; both fall, as when training goes wrong, which is no hacking.
        for slope in (0.02, 0.0, -0.02):
            _, alerts = run(lambda k: slope * k, lambda k: slope * k, seed=seed)  # noqa: B023
            assert not any(alerts)


def test_collapse_is_a_share_of_the_first_diversity() -> None:
    _, alerts = run(lambda k: 0.0, lambda k: 0.0, lambda k: 3.0 * math.exp(-k / 50.0))
    first = next(k for k, alert in enumerate(alerts) if alert)
    # Half of the mean of the first ten, by the mean of the last ten.
    assert alerts[first] == ("collapse",)
    assert first == 9 + math.ceil(50.0 * math.log(2.0))


def test_a_state_goes_on_and_is_plain(tmp_path: Path) -> None:
    monitor, _ = run(lambda k: 0.05 * k, lambda k: -0.05 * k)
    state = json.loads(json.dumps(monitor.state_dict()))
    again = RewardMonitor()
    again.load_state_dict(state)
    assert again.history == monitor.history
    more = torch.zeros(4), torch.full((4,), 9.0)
    assert again.update(*more) == monitor.update(*more)
    assert again.best_update == monitor.best_update
    monitor.plot(tmp_path / "monitor.png", "a run")
    assert (tmp_path / "monitor.png").stat().st_size > 5_000
    bare = RewardMonitor(window=1)
    assert bare.best_update is None
    with pytest.raises(ValueError, match="nothing to draw"):
        bare.plot(tmp_path / "empty.png")
    assert bare.update(torch.ones(1), torch.ones(1)) == ()
    bare.plot(tmp_path / "bare.svg")


def test_spread_is_that_of_two_samples_of_a_condition() -> None:
    x = torch.randn(3, 4000, 2, 5, generator=torch.Generator().manual_seed(0))
    shifted = 2.0 * x + torch.arange(3.0).reshape(3, 1, 1, 1)  # conditions do not count
    assert float(sample_spread(shifted, 2)) == pytest.approx(2.0 * math.sqrt(2.0), rel=0.01)
    with pytest.raises(ValueError, match="at least two samples"):
        sample_spread(torch.zeros(3, 1, 2), 1)


def test_what_cannot_be_watched_is_refused() -> None:
    for settings in ({"window": 0}, {"z": 0.0}, {"least_diversity": 1.0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            RewardMonitor(**settings)
    monitor = RewardMonitor()
    for pair in ((torch.zeros(3), torch.zeros(2)), (torch.zeros(()), torch.zeros(()))):
        with pytest.raises(ValueError, match="one number per sample"):
            monitor.update(*pair)
    with pytest.raises(ValueError, match="not finite"):
        monitor.update(torch.tensor([math.nan]), torch.zeros(1))
    assert monitor.history == []
