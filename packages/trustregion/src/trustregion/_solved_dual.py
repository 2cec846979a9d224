"""Lambda solved from samples of the reference, and corrected by the KL that is measured."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from trustregion._dual_descent import DualDescent
from trustregion._solve import solve_lambda
from trustregion._tilted import tilted_kl

# KL* goes with lambda^-2, so this is a KL that is off by four.
_LARGEST_CORRECTION = math.log(2.0)


@torch.no_grad()
def solve_dual(
    dual: DualDescent, correction: Float[Tensor, "R"], values: Float[Tensor, "R S n"], horizon: int
) -> dict[str, Float[Tensor, "R"]]:
    """Move lambda to where the tilted reference has the budget's KL, instead of descending.

    With values `Q(s, a_i)` of samples `a_i` of the reference at S observations, that is the
    minimiser of the dual function, `mean_s KL*(lambda; s) = H eps`; its logarithm is averaged
    over updates with the dual's rate, the first one taken as it is. The process being memoryless,
    `KL*` is the path KL of the policy that adjoint matching aims at. So lambda follows a critic
    that changes; what the policy misses of that aim is made up for by `correct_dual`.
    Nothing waits for the device, and replicas never mix. A value that is not finite leaves its
    replica's lambda.

    Args:
        dual: keeps lambda, its bounds and the budget.
        correction: what is added to the logarithm of the solved lambda.
        values: the critic's, of n reference samples at each of S observations.
        horizon: actions `H` of a chunk; the budget is per action.

    Returns:
        Metrics `(R,)`: `lambda` and `lam` of the average, `lambda_solved` of these values alone,
        `tilted_kl` that these values have at `lambda`, and `kl_budget`; nats per action.
    """
    values = values.to(dual.lam.dtype)
    budget = dual.budget(dual.step).to(values.dtype)
    low, high = (dual.scale * bound for bound in dual.bounds)
    solved = solve_lambda(values, horizon * budget, shared=1, bounds=(low, high))
    known = values.isfinite().flatten(1).all(-1)
    solved = torch.where(known, solved, math.nan)
    weight = torch.where(dual.step == 0, 1.0, dual.ema).to(values.dtype)
    aim = (solved / dual.scale).log() + correction
    moved = torch.lerp(dual.lam.log(), aim, weight).exp().clamp(*dual.bounds)
    dual.lam.copy_(torch.where(known, moved, dual.lam))
    dual.step.add_(1)
    # One lambda per replica, the same at all of its observations.
    per_state = tilted_kl(values, dual.lambda_.unsqueeze(-1).expand(values.shape[:-1]))
    return {
        "lambda": dual.lambda_,
        "lam": dual.lam.clone(),
        "lambda_solved": solved,
        "tilted_kl": per_state.mean(-1) / horizon,
        "kl_budget": budget.expand(solved.shape).clone(),
    }


@torch.no_grad()
def correct_dual(
    dual: DualDescent, correction: Float[Tensor, "R"], kl: Float[Tensor, "R"]
) -> dict[str, Float[Tensor, "R"]]:
    """Move the correction of a solved lambda, in place, by how far the measured KL is off.

    `c <- clip(c + eta log(KL/eps), -log 2, log 2)` with the dual's rate `eta`, and with
    `KL/eps` inside `[1/clip, clip]`, so that the KL of a policy that has hardly moved yet does
    not count for more than any other that is too small. A KL that is NaN leaves it.

    Args:
        dual: that `solve_dual` has just moved.
        correction: of its replicas.
        kl: measured path KL, nats per action.

    Returns:
        The metric `lambda_correction` `(R,)`, the factor `exp(c)` from the next update on.
    """
    budget = dual.budget(dual.step - 1).to(correction.dtype)
    gap = (kl.to(correction.dtype) / budget).clamp(1.0 / dual.clip, dual.clip).log().nan_to_num(0.0)
    correction.add_(dual.rate * gap).clamp_(-_LARGEST_CORRECTION, _LARGEST_CORRECTION)
    return {"lambda_correction": correction.exp()}
