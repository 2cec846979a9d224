"""The request of both phases."""

from dataclasses import dataclass
from typing import Literal

from bench.experiment._fields import online_option
from bench.experiment._offline import OfflineRequest

__all__ = ["OnlineRequest"]


@dataclass(frozen=True)
class OnlineRequest(OfflineRequest):
    """The offline phase, and after it the online phase in the environments.

    Attributes:
        online_steps: environment steps of each run, instead of the protocol's.
        warm_up: the first of them, which collect experience without an update.
        updates_per_step: updates after each later step.
        replay: batches from data set and experience as one buffer (union), or a fixed share of
            each (balanced); auto balances agents that learn online only.
        offline_share: part of a balanced batch that comes from the data set.
        online_data: which part of a data set in several files the batches are drawn from: one file
            at a time, changed every 1,000 steps (shard), or all; instead of the protocol's.
        online_kl_budget: trust-region budget of the online phase; the offline one by default.
    """

    online_steps: int | None = online_option("steps", least=1)
    warm_up: int | None = online_option("warm_up", least=0)
    updates_per_step: int | None = online_option("updates_per_step", least=1)
    replay: Literal["auto", "union", "balanced"] | None = online_option("replay")
    offline_share: float | None = online_option("offline_share", least=0, most=1)
    online_data: Literal["shard", "all"] | None = online_option("data")
    online_kl_budget: float | None = None
