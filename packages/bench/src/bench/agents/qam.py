"""Q-learning with Adjoint Matching (QAM), arXiv 2601.14234.

A behaviour-cloned flow policy (`slow`) is the reference. A second one (`fast`) is fine-tuned
towards ``p(a|s) ~ p_slow(a|s) exp(tau Q(s,a))`` by adjoint matching at a fixed inverse temperature.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.agents.acting import best_of, flow_action
from bench.agents.adjoint_matching import (
    AdjointMatchingSettings,
    adjoint_losses,
    adjoint_noise,
)
from bench.agents.estimators import adjoint_estimator
from bench.agents.losses import (
    cloning_loss,
    critic_loss,
    optimise,
    policy_and_data_values,
)
from bench.agents.networks import FlowPolicy, critic_ensemble, flow_actor
from bench.agents.noise import Noise, normal, uniform
from bench.agents.problem import Observed, Problem
from bench.agents.reference import averaged, reference_policy
from bench.agents.settings import setting
from flowsde import MemorylessEuler
from qlearn import ChunkBatch, Learner, RandomStreams

__all__ = ["QAM", "QAMConfig"]


@dataclass(frozen=True, slots=True)
class QAMConfig(AdjointMatchingSettings):
    """Settings of QAM; the defaults are the published ones unless noted."""

    inverse_temperature: float = setting(
        1.0,
        "`tau` of `p(a|s) ~ p_slow(a|s) exp(tau Q(s,a))`; published: 0.3, and a value for every "
        "domain",
        least=0,
    )


class QAM(nn.Module):
    """QAM for a pack of independent runs; every tensor's replica axis is ``R``.

    Args:
        config: settings.
        problem: sizes.
        streams: one random stream per replica; they draw the initial parameters.
    """

    def __init__(self, config: QAMConfig, problem: Problem, streams: RandomStreams) -> None:
        super().__init__()
        self.config, self.problem = config, problem
        self.kernel = MemorylessEuler(config.flow_steps, adjoint_time=config.adjoint_time)
        self.estimator = adjoint_estimator(
            config.estimator,
            self.kernel,
            bridge_steps=config.bridge_steps,
            flow_steps=config.flow_steps,
        )
        policy = flow_actor(
            problem, config.actor_hidden, streams, layer_norm=config.actor_layer_norm
        )
        self.slow = policy if config.reference == "ema" else None
        self.critic = critic_ensemble(
            problem,
            config.num_critics,
            config.critic_hidden,
            streams,
            layer_norm=config.critic_layer_norm,
        )
        self.fast = copy.deepcopy(policy)
        self.target_slow = reference_policy(policy, self.fast, config.reference)
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.extend(streams)
        self.to(streams.device)
        self.learner = Learner(
            self.named_parameters(),
            targets=[(self.target_critic, self.critic), *averaged(self.target_slow, self.slow)],
            replicas=streams.replicas,
            learning_rate=config.learning_rate,
            learning_rates=problem.learning_rates,
            target_rate=config.tau,
            max_gradient_norm=config.max_gradient_norm,
        )

    def extend(self, streams: RandomStreams) -> None:
        """Networks that a variant of QAM trains beside these."""

    def start_from(self, flow: FlowPolicy) -> None:
        """Take a behaviour-cloned flow as reference and as the policy to fine-tune."""
        for policy in (self.slow, self.target_slow, self.fast):
            if isinstance(policy, nn.Module):
                policy.load_state_dict(flow.state_dict())

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        size, steps = self.problem.chunk_dim, self.estimator.steps
        return {
            "next_action": normal(batch, size),
            **({"bc_x0": normal(batch, size), "bc_t": uniform(batch)} if self.slow else {}),
            **adjoint_noise(batch, size, steps),
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        config, observations = self.config, batch.observations
        batch = replace(batch, actions=self.problem.counted(batch.actions))

        # Fine-tuned policy: adjoint matching on its own samples.
        matching, samples = adjoint_losses(
            self.estimator,
            fine=self.fast.field(observations),
            base=self.target_slow.field(observations),
            reward=lambda action: (
                config.inverse_temperature
                * self.target_critic(observations, self.problem.counted(action)).mean(-2)
            ),
            noise=noise,
            clip=config.clip_terminal,
            horizon=self.problem.horizon,
            mask=self.problem.mask(batch.actions.device),
        )

        # Critic: TD towards the policy's next chunk, pessimistic over the ensemble.
        next_action = self.next_action(batch, noise)
        penalty: dict[str, Tensor] = {}
        values = None
        if config.value_penalty:
            of_policy, values = policy_and_data_values(
                self.critic, batch, self.problem.counted(samples)
            )
            penalty["value_gap"] = (of_policy - values).mean((-2, -1))
        td = critic_loss(
            self.critic,
            self.target_critic,
            batch,
            next_action,
            rho=config.rho,
            discount=config.discount,
            horizon=self.problem.horizon,
            values=values,
        )

        # Reference: behaviour cloning goes on during fine-tuning, unless it is fixed.
        cloning = {}
        if self.slow is not None:
            cloning["flow_loss"] = cloning_loss(
                self.slow, batch, noise, mask=self.problem.mask(batch.actions.device)
            )
        return {"critic_loss": td, **cloning, **matching, **penalty}

    def update(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One step of critic, reference and fine-tuned policy; metrics are ``(R,)``."""
        parts = self.problem.micro_batches
        return optimise(self.learner, self.losses, self.total, batch, noise, parts)

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum ``(R,)`` that is minimised."""
        total = losses["critic_loss"]
        for name in ("flow_loss", "adjoint_loss"):
            if name in losses:
                total = total + losses[name]
        if "value_gap" in losses:
            total = total + self.config.value_penalty * losses["value_gap"]
        return total

    def next_action(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> Tensor:
        """The policy's chunks after ``batch``, which the critic's target is of."""
        return self.sample(batch.next_observations, noise["next_action"])

    @torch.no_grad()
    def sample(self, observations: Observed, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the fine-tuned policy."""
        field = self.fast.field(observations)
        return self.problem.counted(flow_action(field, noise, self.config.flow_steps))

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        return {"flow": normal(rows, self.config.num_action_samples, self.problem.chunk_dim)}

    @torch.no_grad()
    def act(self, observations: Observed, noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' mean."""
        return best_of(
            noise["flow"],
            observations,
            policy=self.sample,
            value=lambda o, a: self.critic(o, a).mean(-2),
        )
