"""The trust region of a flow model: path-space KL, its budget, and the lambda that meets it.

lambda tilts the base law by exp(reward/lambda): larger lambda, smaller step. KL is in nats.
"""

from trustregion._budget import BudgetSchedule, ConstantBudget, CosineBudget, LinearBudget
from trustregion._dual_descent import DualDescent
from trustregion._path_kl import path_kl, path_kl_steps

__all__ = [
    "BudgetSchedule",
    "ConstantBudget",
    "CosineBudget",
    "DualDescent",
    "LinearBudget",
    "path_kl",
    "path_kl_steps",
]
