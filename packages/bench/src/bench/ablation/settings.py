"""Which settings the ablations on a suite compare."""

import math
from collections.abc import Sequence

__all__ = ["estimator_grid", "families", "kernel_grid"]


def families(
    budgets: Sequence[float],
    coefficients: Sequence[float],
    lambdas: Sequence[float],
    temperature: float,
) -> list[dict[str, object]]:
    """Trust region inside the control problem, as a penalty outside of it, and none that moves.

    Args:
        budgets: KL budgets of the internal trust region, nats per action.
        coefficients: fixed weights of the external KL penalty.
        lambdas: of the control problem, fixed.
        temperature: lambda of the control problem under the penalty.

    Raises:
        ValueError: a value that is not a positive number.
    """
    for option, values in {
        "budgets": budgets,
        "coefficients": coefficients,
        "lambdas": lambdas,
        "temperature": (temperature,),
    }.items():
        for value in values:
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"--{option} must be positive and finite, got {value}")
    # dual_rate=0 holds lambda at lambda_scale * lambda_initial.
    held: dict[str, object] = {"dual_rate": 0.0, "lambda_scale": 1.0}
    return [
        *({"trust_region": "internal", "kl_budget": budget} for budget in budgets),
        *(
            {
                "trust_region": "external",
                "temperature": temperature,
                **held,
                "lambda_initial": weight,
            }
            for weight in coefficients
        ),
        *({**held, "lambda_initial": lam} for lam in lambdas),
    ]


def kernel_grid(
    kernels: Sequence[str], steps: Sequence[int], samples: int
) -> list[dict[str, object]]:
    """Every kernel at every number of flow steps, with the endpoint KL measured.

    Raises:
        ValueError: a number below 1.
    """
    for option, number in (
        *(("flow-steps", count) for count in steps),
        ("endpoint-samples", samples),
    ):
        if number < 1:
            raise ValueError(f"--{option} must be at least 1, got {number}")
    return [
        {"kernel": kernel, "flow_steps": count, "endpoint_kl_samples": samples}
        for kernel in kernels
        for count in steps
    ]


def estimator_grid(
    estimators: Sequence[str], penalties: Sequence[float], samples: int
) -> list[dict[str, object]]:
    """Every estimator with every weight of the value penalty, the realised path KL measured.

    Raises:
        ValueError: a weight below 0, or a number of samples below 1.
    """
    for penalty in penalties:
        if not (math.isfinite(penalty) and penalty >= 0.0):
            raise ValueError(f"--penalties must be finite and at least 0, got {penalty}")
    if samples < 1:
        raise ValueError(f"--path-samples must be at least 1, got {samples}")
    return [
        {"estimator": estimator, "value_penalty": penalty, "path_kl_samples": samples}
        for estimator in estimators
        for penalty in penalties
    ]
