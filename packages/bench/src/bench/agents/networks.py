"""The two networks that nearly every agent has, sized for a problem."""

import copy
from collections.abc import Sequence

from torch import nn

from bench.agents.critics import Critic, ObservationCritic, OwnCritic
from bench.agents.module_policy import ModulePolicy
from bench.agents.problem import Problem
from qlearn import CriticEnsemble, FlowActor, ObservationEncoder, RandomStreams

__all__ = ["FlowPolicy", "critic_ensemble", "flow_actor"]

FlowPolicy = FlowActor | ModulePolicy
"""The project's perceptron for many replicas, or a module of the user's for one."""


def flow_actor(
    problem: Problem, hidden: Sequence[int], streams: RandomStreams, *, layer_norm: bool
) -> FlowPolicy:
    """A flow policy on action chunks: the user's, or a perceptron."""

    def perceptron() -> FlowActor:
        return FlowActor(
            streams.replicas,
            problem.observation_dim,
            problem.chunk_dim,
            hidden,
            layer_norm=layer_norm,
            streams=streams,
        )

    if problem.policy is None:
        return perceptron()
    return problem.policy.build(problem.horizon, problem.action_dim, streams, perceptron)


def critic_ensemble(
    problem: Problem,
    ensemble: int,
    hidden: Sequence[int],
    streams: RandomStreams,
    *,
    layer_norm: bool,
    timed: bool = False,
) -> Critic:
    """Critics on observations and action chunks, and a time where they are ``timed``.

    The user's own; or perceptrons over one vector that has been normalised before, over what an
    encoder makes of the observations, or over the policy's context.
    """
    if isinstance(problem.critic, OwnCritic):
        return problem.critic.build((problem.horizon, problem.action_dim), streams)
    seen = problem.observation_dim
    encoder: nn.Module | None = None
    if problem.critic is not None:
        encoder = context = problem.critic.encoder(problem.spec, streams)
        seen = context.context_dim
    elif problem.normalizer is not None:
        leaves = ObservationEncoder(streams.replicas, problem.spec, streams=streams)
        encoder = nn.Sequential(copy.deepcopy(problem.normalizer), leaves)
        seen = leaves.context_dim
    heads = CriticEnsemble(
        streams.replicas,
        ensemble,
        seen + problem.chunk_dim + (1 if timed else 0),
        hidden,
        layer_norm=layer_norm,
        streams=streams,
    )
    return heads if encoder is None else ObservationCritic(encoder, heads)
