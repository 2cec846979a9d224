"""Guard rails of reward fine-tuning: a second reward, diversity and KL beside the reward."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Alert: TypeAlias = Literal["hacking", "collapse"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One update of a monitor; numbers that were not given are None.

    Attributes:
        reward: Mean of the reward that is trained on.
        reward_error: Its standard error over the samples.
        held_out: Mean of the held-out reward.
        held_out_error: Its standard error.
        diversity: Diversity of the samples, in a unit of its own.
        kl: KL from the base in nats.
        alerts: What is wrong by now.
    """

    reward: float
    reward_error: float
    held_out: float
    held_out_error: float
    diversity: float | None = None
    kl: float | None = None
    alerts: tuple[Alert, ...] = ()


class RewardMonitor:
    """Watches a fine-tuning run for reward hacking and for the loss of diversity.

    A reward that is optimised stops measuring what it was made for at some distance from the base.
    This shows against a held-out reward of the same samples, which nothing is trained on: another
    model, another seed, other raters. "hacking" is raised while the held-out reward is
    significantly below its best average so far and the reward significantly above what it was then;
    "collapse" while the diversity is below a share of what it began with. Averages are over a
    window of updates, and significant is `z` standard errors of their difference, so that ordinary
    noise raises nothing.

    Args:
        window: Updates per average, at least 1.
        z: Standard errors that count as significant.
        least_diversity: Share of the diversity of the first window below which samples count as
            collapsed.

    Attributes:
        history: All readings so far.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, *, window: int = 10, z: float = 4.0, least_diversity: float = 0.5) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1 update, got {window}")
        if not z > 0.0:
            raise ValueError(f"z must be positive, got {z}")
        if not 0.0 <= least_diversity < 1.0:
            raise ValueError(f"least_diversity must be in [0, 1), got {least_diversity}")
        self.window, self.z, self.least_diversity = window, z, least_diversity
        self.history: list[Reading] = []
        self._best: tuple[float, float, float, float] | None = None

    def update(
        self,
        reward: Float[Tensor, "batch"],
        held_out: Float[Tensor, "batch"],
        *,
        diversity: float | Tensor | None = None,
        kl: float | Tensor | None = None,
    ) -> tuple[Alert, ...]:
        """Take down one update; the values are looked at, which waits for the device.

        Args:
            reward: Reward of the samples of this update, (B,).
            held_out: Held-out reward of the same samples, (B,), in any unit.
            diversity: For instance `sample_spread`, or that of embeddings.
            kl: For instance the mean of `path_kl`.

        Returns:
            "hacking", "collapse", both or nothing. What to do is yours: stop, take the weights of
            the best held-out reward (`best_update`), or lower the budget.

        Raises:
            ValueError: If the two rewards have not the same shape (B,), or are not finite.
        """
        if reward.ndim != 1 or reward.shape != held_out.shape or len(reward) == 0:
            raise ValueError(
                f"reward has shape {tuple(reward.shape)} and held_out {tuple(held_out.shape)}; "
                "expected one number per sample, (B,), of both"
            )
        (mean, error), (other, other_error) = _mean(reward), _mean(held_out)
        if not (math.isfinite(mean) and math.isfinite(other)):
            raise ValueError(f"the rewards are not finite: their means are {mean} and {other}")
        reading = Reading(mean, error, other, other_error, _number(diversity), _number(kl))
        self.history.append(reading)
        alerts = self._alerts()
        self.history[-1] = replace(reading, alerts=alerts)
        return alerts

    @property
    def best_update(self) -> int | None:
        """Number of the update at which the average held-out reward was best; None before any."""
        if len(self.history) < self.window:
            return len(self.history) - 1 if self.history else None
        averages = [
            sum(r.held_out for r in self.history[end - self.window : end]) / self.window
            for end in range(self.window, len(self.history) + 1)
        ]
        return averages.index(max(averages)) + self.window - 1

    def _alerts(self) -> tuple[Alert, ...]:
        if len(self.history) < self.window:
            return ()
        alerts: list[Alert] = []
        last = self.history[-self.window :]
        reward, reward_error = _average([(r.reward, r.reward_error) for r in last])
        held, held_error = _average([(r.held_out, r.held_out_error) for r in last])
        if self._best is None or held >= self._best[2]:
            self._best = (reward, reward_error, held, held_error)
        then, then_error, best, best_error = self._best
        fallen = best - held > self.z * math.hypot(held_error, best_error)
        if fallen and reward - then > self.z * math.hypot(reward_error, then_error):
            alerts.append("hacking")
        known = [r.diversity for r in self.history if r.diversity is not None]
        if len(known) > self.window:
            first, now = (
                sum(d) / self.window for d in (known[: self.window], known[-self.window :])
            )
            if now < self.least_diversity * first:
                alerts.append("collapse")
        return tuple(alerts)

    def state_dict(self) -> dict[str, Any]:
        """Everything that later alerts depend on, as plain numbers."""
        return {"history": [asdict(reading) for reading in self.history], "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`."""
        self.history = [
            Reading(**{**reading, "alerts": tuple(reading["alerts"])})
            for reading in state["history"]
        ]
        self._best = None if state["best"] is None else tuple(state["best"])

    def plot(self, file: str | PathLike[str], title: str = "") -> None:
        """Draw rewards, diversity and KL over the updates, alerts shaded; needs matplotlib.

        Args:
            file: Where the picture is written; the suffix chooses its format.
            title: Heading.

        Raises:
            ValueError: If there is nothing to draw yet.
        """
        from matplotlib.figure import Figure

        if not self.history:
            raise ValueError("nothing to draw: call update first")
        figure = Figure(figsize=(9.0, 3.2))
        rewards, lengths = figure.subplots(1, 2)
        updates = range(len(self.history))
        rewards.plot(updates, [r.reward for r in self.history], color="tab:blue", label="reward")
        held = [r.held_out for r in self.history]
        rewards.plot(updates, held, color="tab:orange", label="held-out reward")
        if self.best_update is not None:
            rewards.axvline(self.best_update, color="0.5", linewidth=0.8, linestyle=":")
        beside = lengths.twinx()
        for axis, name, colour in (
            (lengths, "kl", "tab:green"),
            (beside, "diversity", "tab:purple"),
        ):
            points = [
                (k, value)
                for k, value in enumerate(getattr(r, name) for r in self.history)
                if value is not None
            ]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour)
            axis.set_ylabel({"kl": "KL (nats)"}.get(name, name), color=colour)
            axis.set_ylim(bottom=0.0)
        for k, reading in enumerate(self.history):
            if reading.alerts:
                colour = "tab:red" if "hacking" in reading.alerts else "tab:purple"
                rewards.axvspan(k - 0.5, k + 0.5, color=colour, alpha=0.15, linewidth=0.0)
        rewards.set(xlabel="update", title=title)
        lengths.set_xlabel("update")
        rewards.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(file, dpi=110)


def sample_spread(samples: Float[Tensor, "*shape"], event_ndim: int) -> Float[Tensor, ""]:
    """Root mean squared distance per entry between two samples of the same condition.

    Args:
        samples: (*batch, copies, *event) with at least two samples of each condition along the axis
            before the event's.
        event_ndim: Number of trailing axes that make up one sample.

    Returns:
        The mean over conditions, ().

    Raises:
        ValueError: If there are no two samples of a condition.
    """
    axis = samples.ndim - event_ndim - 1
    if axis < 0 or samples.shape[axis] < 2:
        raise ValueError(
            f"samples of shape {tuple(samples.shape)} with event_ndim={event_ndim} have no axis of "
            "at least two samples of the same condition before that of the event"
        )
    return (
        2.0 * samples.to(torch.promote_types(samples.dtype, torch.float32)).var(axis).mean()
    ).sqrt()


def _mean(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error; 0 for a single value."""
    values = values.detach().double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(values.mean()), error


def _number(value: float | Tensor | None) -> float | None:
    return None if value is None else float(value)


def _average(readings: list[tuple[float, float]]) -> tuple[float, float]:
    """Mean of means, and its standard error from theirs."""
    count = len(readings)
    return (
        sum(mean for mean, _ in readings) / count,
        math.sqrt(sum(error**2 for _, error in readings)) / count,
    )
