"""Hours of devices and cores that a suite takes."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from bench.agents import AGENTS
from bench.agents.settings import widest_layer
from bench.experiment import CLONING, is_cloning
from bench.suites import Domain, Suite
from bench.training.cost import update_flops
from bench.training.domain_sizes import DomainSizes
from bench.training.settings import resolve

__all__ = ["DomainCost", "SuiteCost", "suite_cost"]


@dataclass(frozen=True, slots=True)
class DomainCost:
    """One domain with all its tasks and seeds.

    Attributes:
        name: of the domain.
        width: of the widest hidden layer.
        runs: tasks times seeds.
        updates: of all runs together, behaviour cloning included (once for all tasks of a seed).
        flops: of these updates.
        device_hours: of one device, at its measured or estimated rate.
        simulator_steps: of all runs, if no episode ends before its limit.
        core_hours: of one core for these, at the rate of `sizes`.
    """

    name: str
    width: int
    runs: int
    updates: int
    flops: float
    device_hours: float
    simulator_steps: int
    core_hours: float


@dataclass(frozen=True, slots=True)
class SuiteCost:
    """A suite's domains.

    Attributes:
        domains: in the suite's order.
        seeds: per task.
    """

    domains: tuple[DomainCost, ...]
    seeds: int

    @property
    def device_hours(self) -> float:
        """Of one device for everything."""
        return sum(domain.device_hours for domain in self.domains)

    @property
    def core_hours(self) -> float:
        """Of simulation."""
        return sum(domain.core_hours for domain in self.domains)

    def hours(self, devices: int) -> float:
        """Until the last of ``devices`` has trained its share.

        A domain's seeds are dealt out one by one, longest first, each to the least busy device: the
        tasks of a seed stay together because they share their cloned policy.

        Raises:
            ValueError: no devices.
        """
        if devices < 1:
            raise ValueError(f"there must be at least one device, got {devices}")
        shares = [d.device_hours / self.seeds for d in self.domains for _ in range(self.seeds)]
        busy = [0.0] * devices
        for share in sorted(shares, reverse=True):
            heapq.heapreplace(busy, busy[0] + share)
        return max(busy)


def suite_cost(
    suite: Suite,
    agent: str,
    seeds: int,
    sizes: Callable[[Domain], DomainSizes],
    rate: Callable[[int], float],
    *,
    online: bool = False,
) -> SuiteCost:
    """Count the operations and simulator steps of a suite and divide by rates.

    Args:
        suite: what to train.
        agent: by which method.
        seeds: per task.
        sizes: of a domain's environment.
        rate: useful FLOP/s of the device, by width.
        online: with the online phase.

    Raises:
        ValueError: no seeds.
    """
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    return SuiteCost(
        tuple(_domain_cost(suite, d, agent, seeds, sizes(d), rate, online) for d in suite.domains),
        seeds,
    )


def _domain_cost(
    suite: Suite,
    domain: Domain,
    agent: str,
    seeds: int,
    sizes: DomainSizes,
    rate: Callable[[int], float],
    online: bool,
) -> DomainCost:
    protocol, entry, clones = suite.protocol, AGENTS[agent], is_cloning(agent)
    own = resolve(entry.config, agent, domain, {})
    runs = seeds * len(domain.tasks)
    offline_updates = protocol.pretrain_steps if clones else protocol.offline_steps
    updates = (seeds if clones else runs) * offline_updates
    played = _evaluations(0 if clones else offline_updates, protocol.evaluate_every)
    steps = played * protocol.episodes * sizes.episode_steps
    if online and not clones:
        phase = protocol.online
        updates += runs * phase.updates_per_step * (phase.steps - phase.warm_up)
        more = _evaluations(phase.steps, protocol.evaluate_every) * protocol.episodes
        steps += phase.steps + more * sizes.episode_steps
    flops = updates * update_flops(agent, own, sizes.problem, protocol.batch_size)
    if entry.pretrained and not clones:
        cloning = resolve(AGENTS[CLONING].config, CLONING, domain, {})
        each = update_flops(CLONING, cloning, sizes.problem, protocol.batch_size)
        flops += seeds * protocol.pretrain_steps * each
        updates += seeds * protocol.pretrain_steps
    width = widest_layer(own)
    return DomainCost(
        name=domain.name,
        width=width,
        runs=runs,
        updates=updates,
        flops=flops,
        device_hours=flops / rate(width) / 3600.0,
        simulator_steps=runs * steps,
        core_hours=runs * steps / sizes.steps_per_s / 3600.0,
    )


def _evaluations(steps: int, every: int) -> int:
    """How often a phase evaluates: every so often and at its end."""
    return max(1, -(-steps // every))
