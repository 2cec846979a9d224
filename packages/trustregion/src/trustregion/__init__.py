"""The trust region of a flow model: path-space KL, its budget, and the lambda that meets it.

A reward Q tilts the base law by exp(Q/lambda): larger lambda, smaller step. KL is in nats.
"""

from trustregion._budget import BudgetSchedule, ConstantBudget, CosineBudget, LinearBudget
from trustregion._dual_descent import DualDescent
from trustregion._kl_budget import KLBudget
from trustregion._linear_gaussian import LinearGaussian
from trustregion._monitor import Alert, Reading, RewardMonitor, sample_spread
from trustregion._path_kl import path_kl, path_kl_steps
from trustregion._relative_descent import RelativeDualDescent
from trustregion._solve import solve_lambda
from trustregion._solved_dual import correct_dual, solve_dual
from trustregion._tilted import dual_function, tilted_kl, tilted_kl_derivative

__all__ = [
    "Alert",
    "BudgetSchedule",
    "ConstantBudget",
    "CosineBudget",
    "DualDescent",
    "KLBudget",
    "LinearBudget",
    "LinearGaussian",
    "Reading",
    "RelativeDualDescent",
    "RewardMonitor",
    "correct_dual",
    "dual_function",
    "path_kl",
    "path_kl_steps",
    "sample_spread",
    "solve_dual",
    "solve_lambda",
    "tilted_kl",
    "tilted_kl_derivative",
]
