"""Temporal-difference targets and losses of pessimistic critic ensembles on action chunks."""

from jaxtyping import Float
from torch import Tensor

__all__ = ["expectile_loss", "pessimistic_value", "td_loss", "td_target"]


def pessimistic_value(qs: Float[Tensor, "*lead E B"], rho: float) -> Float[Tensor, "*lead B"]:
    """``mean_E(Q) - rho * std_E(Q)`` over the members of an ensemble.

    The standard deviation is the population one (divisor ``E``), as in the published QAM code; it
    is zero for an ensemble of one, and then carries no gradient.

    Args:
        qs: values of the members, ensemble on the second last axis.
        rho: pessimism.

    Returns:
        One value per row.
    """
    mean = qs.mean(-2)
    if rho == 0.0 or qs.shape[-2] == 1:
        return mean
    return mean - rho * qs.std(-2, correction=0)


def td_target(
    rewards: Float[Tensor, "*rows"],
    masks: Float[Tensor, "*rows"],
    next_value: Float[Tensor, "*rows"],
    *,
    discount: float,
    horizon: int = 1,
) -> Float[Tensor, "*rows"]:
    """``rewards + discount**horizon * masks * next_value`` of action chunks.

    Args:
        rewards: discounted reward sum inside the chunk.
        masks: 0 where the task ended inside the chunk, so that nothing is bootstrapped.
        next_value: value after the chunk.
        discount: per environment step.
        horizon: chunk length ``H`` in steps.

    Returns:
        Regression target of the critic; the caller decides about gradients.

    Raises:
        ValueError: the three differ in shape, which would broadcast to targets of other rows.
    """
    if not rewards.shape == masks.shape == next_value.shape:
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, masks {tuple(masks.shape)} and next_value "
            f"{tuple(next_value.shape)} differ in shape; expected one number per row in each "
            "(squeeze a last axis of size 1)"
        )
    return rewards + discount**horizon * masks * next_value


def td_loss(
    qs: Float[Tensor, "*lead E B"],
    target: Float[Tensor, "..."],
    valid: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "*lead"]:
    """Mean over ensemble and batch of ``valid * (Q - target)**2``.

    The divisor is ``E * B`` whatever the flags say, as in the published code.

    Args:
        qs: values of the members ``(R, E, B)``.
        target: ``(R, B)`` shared by the members, or ``(R, E, B)`` with one for each.
        valid: ``(R, B)`` weights, 0 for chunks that an episode's end cuts.

    Returns:
        One loss per replica ``(R,)``.

    Raises:
        ValueError: target or flags of another shape, which would broadcast to other rows.
    """
    rows = qs.shape[:-2] + qs.shape[-1:]
    if target.shape not in (rows, qs.shape):
        raise ValueError(
            f"target has shape {tuple(target.shape)} for values of shape {tuple(qs.shape)}; "
            f"expected {tuple(rows)}, or {tuple(qs.shape)} with one for each member"
        )
    if valid is not None and valid.shape != rows:
        raise ValueError(
            f"valid has shape {tuple(valid.shape)} for values of shape {tuple(qs.shape)}; "
            f"expected one weight per row, {tuple(rows)}"
        )
    if target.dim() < qs.dim():
        target = target.unsqueeze(-2)
    squared = (qs - target).square()
    if valid is not None:
        squared = squared * valid.unsqueeze(-2)
    return squared.mean((-2, -1))


def expectile_loss(difference: Float[Tensor, "*rows"], expectile: float) -> Float[Tensor, "*rows"]:
    """Asymmetric square ``w * difference**2`` of implicit Q-learning (arXiv 2110.06169).

    Args:
        difference: target minus prediction.
        expectile: weight where ``difference >= 0``; ``1 - expectile`` elsewhere.

    Returns:
        Loss of each element.

    Raises:
        ValueError: ``expectile`` outside ``(0, 1)``.
    """
    if not 0.0 < expectile < 1.0:
        raise ValueError(f"expectile must lie strictly between 0 and 1, got {expectile}")
    positive = (difference >= 0).to(difference.dtype)
    weight = (1.0 - expectile) + (2.0 * expectile - 1.0) * positive
    return weight * difference.square()
