"""Settings that most agents have; an agent's own are in its file."""

from dataclasses import dataclass

__all__ = ["ActorCriticSettings", "FlowAgentSettings"]


@dataclass(frozen=True, slots=True)
class ActorCriticSettings:
    """Settings of an actor and an ensemble of critics; the defaults are the published ones.

    Attributes:
        actor_hidden: widths of the policies' hidden layers.
        critic_hidden: widths of the hidden layers of the critics, and of a value network.
        critic_layer_norm: LayerNorm in these.
        critics: size of the critic ensemble.
        discount: per environment step; published: 0.995 in the code of TRQAM, 0.99 in that of QAM.
        pessimism: ``rho`` of ``mean(Q) - rho * std(Q)`` over the target ensemble.
        learning_rate: Adam's step size.
        target_rate: EMA rate ``tau`` of the target critic and of every other moving average.
        max_gradient_norm: global-norm clip over all parameters of a run together; None: no clip.
    """

    actor_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_hidden: tuple[int, ...] = (512, 512, 512, 512)
    critic_layer_norm: bool = True
    critics: int = 10
    discount: float = 0.995
    pessimism: float = 0.5
    learning_rate: float = 3e-4
    target_rate: float = 0.005
    max_gradient_norm: float | None = None


@dataclass(frozen=True, slots=True)
class FlowAgentSettings(ActorCriticSettings):
    """Those of an agent with a flow policy.

    Attributes:
        actor_layer_norm: LayerNorm in the policies.
        flow_steps: Euler steps ``K`` of the flow.
        best_of: actions sampled when acting; the one with the best mean critic value is played.
    """

    actor_layer_norm: bool = False
    flow_steps: int = 10
    best_of: int = 1
