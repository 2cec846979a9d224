"""`bench online`: continue the offline result of every run in its environment."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from bench.cli.offline import Offline

__all__ = ["Online"]


@dataclass(frozen=True)
class Online:
    """Go on from the offline phase in the environments, and write one table of both phases.

    What is missing of the offline phase is run first. The same command continues; it may be given
    the run directory of `bench offline`.

    Attributes:
        offline: the offline phase; --steps are its updates.
        online_steps: environment steps of each run, instead of the protocol's.
        warm_up: the first of them, which collect experience without an update.
        updates_per_step: updates after each later step.
        replay: batches from data set and experience as one buffer (union), or a fixed share of
            each (balanced); auto balances agents that learn online only.
        offline_share: part of a balanced batch that comes from the data set.
        online_kl_budget: trust-region budget of the online phase; the offline one by default.
    """

    offline: Annotated[Offline, tyro.conf.arg(name="")] = field(default_factory=Offline)
    online_steps: int | None = None
    warm_up: int | None = None
    updates_per_step: int | None = None
    replay: Literal["auto", "union", "balanced"] | None = None
    offline_share: float | None = None
    online_kl_budget: float | None = None

    def run(self) -> int:
        """Plan the cells, then list or run them."""
        from bench.training.dry_run import describe
        from bench.training.job import Job
        from bench.training.online_options import plan_online

        plan = plan_online(self)
        if self.offline.dry_run:
            describe(plan)
            return 0
        return Job(plan).run()
