"""`bench plan`: what a whole suite costs, from measured rates."""

from bench.scale._cost import DomainCost, SuiteCost, suite_cost
from bench.training.domain_sizes import DomainSizes, domain_sizes
from bench.training.rates import DeviceRate, count_threads, device_rate, read_rates

__all__ = [
    "DeviceRate",
    "DomainCost",
    "DomainSizes",
    "SuiteCost",
    "count_threads",
    "device_rate",
    "domain_sizes",
    "read_rates",
    "suite_cost",
]
