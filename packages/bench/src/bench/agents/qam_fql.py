"""QAM with a one-step policy (QAM-F), arXiv 2601.14234.

QAM's fine-tuned flow (`fast`) is the teacher of a policy that turns noise into an action in one
evaluation and also climbs the critic, as in FQL (arXiv 2502.02538). This one-step policy ``mu``
acts; it minimises ``alpha mean (mu(s, z) - flow(s, z))^2 - mean_i Q_i(s, mu(s, z))``, z ~ N(0, I).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.agents.acting import flow_action
from bench.agents.losses import one_step_losses
from bench.agents.noise import Noise, normal
from bench.agents.problem import Observed
from bench.agents.qam import QAM, QAMConfig
from bench.agents.settings import setting
from qlearn import ChunkBatch, OneStepActor, RandomStreams

__all__ = ["QAMFQL", "QAMFQLConfig"]


@dataclass(frozen=True, slots=True)
class QAMFQLConfig(QAMConfig):
    """Settings of QAM-F: those of QAM, unless noted with the published defaults, and one more."""

    distill_weight: float = setting(
        30.0,
        "weight of the distance between one-step policy and flow; 0 does without the one-step "
        "policy, which is QAM (the published default, and the published choice for some domains)",
        least=0,
    )


class QAMFQL(QAM):
    """QAM-F for a pack of independent runs: :class:`QAM` and a one-step policy, which acts.

    Its losses are QAM's, with the one-step policy's action as the critic's next one, and those of
    the one-step policy. Every tensor's replica axis is ``R``.
    """

    config: QAMFQLConfig

    def extend(self, streams: RandomStreams) -> None:
        """The one-step policy."""
        self.one_step: OneStepActor | None = None
        if self.config.distill_weight > 0.0:
            self.one_step = OneStepActor(
                streams.replicas,
                self.problem.observation_dim,
                self.problem.chunk_dim,
                self.config.actor_hidden,
                layer_norm=self.config.actor_layer_norm,
                streams=streams,
            )

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        return super().noise(batch) | {"distill": normal(batch, self.problem.chunk_dim)}

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        losses = super().losses(batch, noise)
        if self.one_step is None:
            return losses

        # One-step policy: close to the fine-tuned flow from the same noise, and valuable.
        observations = batch.observations
        flow = self.fast.field(observations)
        distill, value = one_step_losses(
            self.one_step,
            flow_action(flow, noise["distill"], self.config.flow_steps),
            self.critic,
            observations,
            noise["distill"],
        )
        return losses | {"distill_loss": distill, "q_loss": value}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum ``(R,)`` that is minimised."""
        total = super().total(losses)
        if self.one_step is None:
            return total
        return total + self.config.distill_weight * losses["distill_loss"] + losses["q_loss"]

    @torch.no_grad()
    def sample(self, observations: Observed, noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)`` of the one-step policy, or of the flow without one."""
        if self.one_step is None:
            return super().sample(observations, noise)
        action: Tensor = self.one_step(observations, noise)
        return action.clamp(-1.0, 1.0)
