"""The two networks that nearly every agent has, sized for a problem."""

from collections.abc import Sequence

from bench.agents.module_policy import ModulePolicy
from bench.agents.problem import Problem
from qlearn import CriticEnsemble, FlowActor, RandomStreams

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
) -> CriticEnsemble:
    """Critics on ``[observation, action chunk]``, or ``[observation, action chunk, t]``."""
    return CriticEnsemble(
        streams.replicas,
        ensemble,
        problem.observation_dim + problem.chunk_dim + (1 if timed else 0),
        hidden,
        layer_norm=layer_norm,
        streams=streams,
    )
