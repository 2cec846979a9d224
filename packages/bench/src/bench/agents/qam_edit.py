"""QAM with an edit policy (QAM-E), arXiv 2601.14234.

QAM's fine-tuned flow (`fast`) proposes an action. A tanh-Gaussian policy reads it and adds a small
edit, ``a = clip(a_flow + scale * tanh(u), -1, 1)``, trained to climb the critic with its entropy
held at a target: it minimises ``alpha log p(tanh u|s, a_flow) - mean_i Q_i(s, a)``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.agents.acting import best_of, flow_action
from bench.agents.losses import entropy_losses
from bench.agents.noise import Noise, normal
from bench.agents.problem import Observed
from bench.agents.qam import QAM, QAMConfig
from bench.agents.settings import setting
from qlearn import ChunkBatch, EntropyTemperature, GaussianActor, RandomStreams, frozen

__all__ = ["QAMEdit", "QAMEditConfig"]


@dataclass(frozen=True, slots=True)
class QAMEditConfig(QAMConfig):
    """Settings of QAM-E: those of QAM, unless noted with the published defaults, and two more."""

    edit_scale: float = setting(
        0.1,
        "largest edit of an action component; 0 does without the edit policy, which is QAM (the "
        "published default, and the published choice for some domains)",
        least=0,
    )
    target_entropy: float = setting(
        -0.5, "of the edit before scaling, in nats per component of the action chunk"
    )


class QAMEdit(QAM):
    """QAM-E for a pack of independent runs: :class:`QAM` and an edit policy.

    Its losses are QAM's, with the edited action as the critic's next one, and those of soft
    actor-critic on the edit. Every tensor's replica axis is ``R``.
    """

    config: QAMEditConfig

    def extend(self, streams: RandomStreams) -> None:
        """The edit policy with its temperature."""
        self.edit: GaussianActor | None = None
        if self.config.edit_scale > 0.0:
            self.edit = GaussianActor(
                streams.replicas,
                self.problem.observation_dim + self.problem.chunk_dim,
                self.problem.chunk_dim,
                self.config.actor_hidden,
                streams=streams,
            )
            self.temperature = EntropyTemperature(streams.replicas)

    def noise(self, batch: int) -> dict[str, Noise]:
        """The random numbers that one update on ``batch`` chunks consumes."""
        edits = ("next_edit", "edit_base", "edit")
        return super().noise(batch) | {
            name: normal(batch, self.problem.chunk_dim) for name in edits
        }

    def losses(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Losses and diagnostics ``(R,)`` of one batch, all from the parameters as they are."""
        losses = super().losses(batch, noise)
        if self.edit is None:
            return losses

        # Edit policy: a soft actor-critic step around the flow's action.
        config, observations = self.config, batch.observations
        flow = flow_action(self.fast.field(observations), noise["edit_base"], config.flow_steps)
        edit, log_prob = self.edit(observations, flow).sample(noise["edit"])
        edited = (flow + config.edit_scale * edit).clamp(-1.0, 1.0)
        losses["edit_q_loss"] = -frozen(self.critic)(observations, edited).mean((-2, -1))
        entropy = entropy_losses(
            log_prob, self.temperature, config.target_entropy * self.problem.chunk_dim
        )
        return losses | {f"edit_{name}": value for name, value in entropy.items()}

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum ``(R,)`` that is minimised."""
        total = super().total(losses)
        if self.edit is None:
            return total
        total = total + losses["edit_q_loss"] + losses["edit_entropy_loss"]
        return total + losses["edit_alpha_loss"]

    def next_action(self, batch: ChunkBatch, noise: Mapping[str, Tensor]) -> Tensor:
        """The policy's chunks after ``batch``, which the critic's target is of."""
        return self.edited(batch.next_observations, noise["next_action"], noise["next_edit"])

    @torch.no_grad()
    def edited(self, observations: Tensor, noise: Tensor, edit_noise: Tensor) -> Tensor:
        """Action chunks ``(R, B, D)``: the flow's, edited."""
        flow = self.sample(observations, noise)
        if self.edit is None:
            return flow
        edit: Tensor = self.edit(observations, flow).sample(edit_noise)[0]
        return (flow + self.config.edit_scale * edit).clamp(-1.0, 1.0)

    def acting_noise(self, rows: int) -> dict[str, Noise]:
        """The random numbers that acting on ``rows`` observations consumes."""
        shape = (rows, self.config.num_action_samples, self.problem.chunk_dim)
        return {"flow": normal(*shape), "edit": normal(*shape)}

    @torch.no_grad()
    def act(self, observations: Observed, noise: Mapping[str, Tensor]) -> Tensor:
        """Action chunks ``(R, n, D)``, the best sample by the critics' mean."""
        return best_of(
            torch.cat((noise["flow"], noise["edit"]), dim=-1),
            observations,
            policy=lambda o, x: self.edited(o, *x.chunk(2, dim=-1)),
            value=lambda o, a: self.critic(o, a).mean(-2),
        )
