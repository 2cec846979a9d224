"""The losses that agents share, on batches of chunks, one value per replica."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.agents.diffusion import PolicyPrediction, denoising_loss
from bench.agents.networks import FlowPolicy
from flowsde import flow_matching_loss
from qlearn import (
    ChunkBatch,
    EntropyTemperature,
    Learner,
    OneStepActor,
    frozen,
    pessimistic_value,
    td_loss,
    td_target,
    tree_concat,
    tree_rows,
)

__all__ = [
    "cloning_loss",
    "critic_loss",
    "entropy_losses",
    "one_step_losses",
    "optimise",
    "policy_and_data_values",
    "take_step",
]

Critic = Callable[[Any, Tensor], Tensor]
"""``(observations (R, B, O), actions (R, B, D)) -> values (R, E, B)``."""


def critic_loss(
    critic: Critic,
    target_critic: Critic,
    batch: ChunkBatch,
    next_action: Float[Tensor, "R B D"],
    *,
    rho: float,
    discount: float,
    horizon: int,
    values: Float[Tensor, "R E B"] | None = None,
) -> Float[Tensor, "R"]:
    """TD loss towards ``R + discount^H mask (mean_i Q'_i - rho std_i Q'_i)``.

    Args:
        critic: trained ensemble.
        target_critic: its moving average.
        batch: chunks.
        next_action: the policy's chunk at ``batch.next_observations``.
        rho: pessimism of ``mean - rho * std`` over the target ensemble.
        discount: per environment step.
        horizon: chunk length ``H``.
        values: of the batch by the trained ensemble, where they are known already.
    """
    with torch.no_grad():
        next_qs = target_critic(batch.next_observations, next_action)
        next_value = pessimistic_value(next_qs, rho)
        target = td_target(
            batch.rewards, batch.masks, next_value, discount=discount, horizon=horizon
        )
    if values is None:
        values = critic(batch.observations, batch.actions)
    return td_loss(values, target, batch.valid)


def policy_and_data_values(
    critic: Critic, batch: ChunkBatch, policy_action: Float[Tensor, "R B D"]
) -> tuple[Float[Tensor, "R E B"], Float[Tensor, "R E B"]]:
    """Values of a policy's chunks, clipped, and of the data's at the same observations.

    Their mean difference is the value gap that SQAM (arXiv 2610.10437) adds to its critic's loss,
    after conservative Q-learning (arXiv 2006.04779): it keeps the critic from overrating the
    policy's own actions. Gradient flows through both.

    Args:
        critic: trained ensemble.
        batch: chunks.
        policy_action: of the policy, held fixed.
    """
    actions = torch.cat([policy_action.detach().clamp(-1.0, 1.0), batch.actions], dim=1)
    values = critic(tree_concat([batch.observations] * 2, dim=1), actions)
    of_policy, of_data = values.chunk(2, dim=-1)
    return of_policy, of_data


def cloning_loss(
    flow: FlowPolicy,
    batch: ChunkBatch,
    noise: Mapping[str, Tensor],
    prediction: PolicyPrediction = "velocity",
    *,
    mask: Bool[Tensor, "D"] | None = None,
) -> Float[Tensor, "R"]:
    """Flow matching to the data's chunks, or denoising of them for a diffusion policy.

    Chunks that an episode's end cuts are masked out.

    Args:
        flow: trained policy.
        batch: chunks.
        noise: ``bc_x0 (R, B, D)`` normal and ``bc_t (R, B)`` uniform.
        prediction: what the network predicts.
        mask: entries of a chunk that count; None for all.
    """
    x0, t = noise["bc_x0"], noise["bc_t"]
    if prediction == "velocity":
        field = flow.field(batch.observations)
        losses = flow_matching_loss(field, batch.actions, x0, t, mask=mask)
    else:
        losses = denoising_loss(flow, batch.observations, batch.actions, x0, t)
    return (losses * batch.valid).mean(-1)


def one_step_losses(
    actor: OneStepActor,
    teacher_action: Float[Tensor, "R B D"],
    critic: nn.Module,
    observations: Float[Tensor, "R B O"],
    noise: Float[Tensor, "R B D"],
) -> tuple[Float[Tensor, "R"], Float[Tensor, "R"]]:
    """How far a one-step policy is from its teacher, and minus the value of what it does.

    Args:
        actor: trained policy.
        teacher_action: end of the teacher's flow from the same noise.
        critic: ensemble, held fixed.
        observations: where both act.
        noise: where both start.

    Returns:
        ``mean (mu - teacher)^2`` over batch and action, and ``-mean Q(s, clip(mu))`` over batch
        and ensemble.
    """
    action = actor(observations, noise)
    distill_loss = (action - teacher_action).square().mean((-2, -1))
    values = frozen(critic)(observations, action.clamp(-1.0, 1.0))
    return distill_loss, -values.mean((-2, -1))


def entropy_losses(
    log_prob: Float[Tensor, "R B"], temperature: EntropyTemperature, target: float
) -> dict[str, Float[Tensor, "R"]]:
    """What soft actor-critic (arXiv 1812.05905) adds to minus the value of a policy's actions.

    Args:
        log_prob: of the policy's actions, with gradient.
        temperature: alpha, tuned towards the target.
        target: entropy that is wanted, in nats per chunk.

    Returns:
        `entropy_loss`, alpha times the mean log-probability; `alpha_loss`, of the temperature;
        `alpha`; and `entropy` in nats per chunk.
    """
    alpha = temperature()
    return {
        "entropy_loss": alpha.detach() * log_prob.mean(-1),
        "alpha_loss": temperature.loss(log_prob, target),
        "alpha": alpha,
        "entropy": -log_prob.mean(-1),
    }


def optimise(
    learner: Learner,
    losses: Callable[[ChunkBatch, Mapping[str, Tensor]], Mapping[str, Tensor]],
    total: Callable[[Mapping[str, Tensor]], Float[Tensor, "R"]],
    batch: ChunkBatch,
    noise: Mapping[str, Tensor],
    micro_batches: int = 1,
) -> dict[str, Tensor]:
    """One step on a batch; the metrics of every agent's update, ``(R,)`` each.

    In several micro-batches the activations of one are freed before the next is evaluated; all
    losses are means over the batch, so gradients and metrics are those of the whole, up to rounding
    and to what a loss reads of the batch as a whole.

    Args:
        learner: of the agent.
        losses: of a batch and its noise.
        total: what is minimised, from the losses.
        batch: chunks.
        noise: as `losses` reads it.
        micro_batches: parts of equal size.
    """
    if micro_batches == 1:
        found = losses(batch, noise)
        return take_step(learner, found, total(found))
    summed: list[Tensor] = []
    metrics: dict[str, Tensor] = {}
    for part, its_noise in _parts(batch, noise, micro_batches):
        found = losses(part, its_noise)
        loss = total(found) / micro_batches
        gradients = learner.gradients(loss)
        if summed:
            torch._foreach_add_(summed, gradients)
        else:
            summed = list(gradients)
        shares = {name: value.detach() / micro_batches for name, value in found.items()}
        for name, share in (shares | {"total_loss": loss.detach()}).items():
            metrics[name] = metrics[name] + share if name in metrics else share
    return metrics | {"gradient_norm": learner.apply(summed).norm}


def _parts(
    batch: ChunkBatch, noise: Mapping[str, Tensor], count: int
) -> Iterator[tuple[ChunkBatch, dict[str, Tensor]]]:
    """Micro-batches with their noise; `path_noise (R, K, B, D)` has its rows behind the steps."""
    size = batch.rewards.shape[1] // count
    for start in range(0, size * count, size):
        rows = (slice(None), slice(start, start + size))
        cut: dict[str, Any] = {
            entry.name: tree_rows(getattr(batch, entry.name), rows) for entry in fields(batch)
        }
        of_part = {
            name: value[:, :, start : start + size] if name == "path_noise" else value[rows]
            for name, value in noise.items()
            if name != "reference"
        }
        yield ChunkBatch(**cut), of_part


def take_step(
    learner: Learner, losses: Mapping[str, Tensor], total: Float[Tensor, "R"]
) -> dict[str, Tensor]:
    """Minimise ``total`` by one step; the metrics of every agent's update, ``(R,)`` each."""
    report = learner.step(total)
    metrics = {name: value.detach() for name, value in losses.items()}
    return metrics | {"total_loss": total.detach(), "gradient_norm": report.norm}
