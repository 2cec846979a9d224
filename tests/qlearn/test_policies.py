"""One-step policies, and networks as fixed functions."""

import torch

from qlearn import CriticEnsemble, OneStepActor, RandomStreams, frozen


def test_a_one_step_policy_reads_observation_and_noise() -> None:
    streams = RandomStreams([0, 1])
    actor = OneStepActor(2, 3, 4, (8,), layer_norm=False, streams=streams)
    observations, noise = streams.normal(5, 3), streams.normal(5, 4)
    actions = actor(observations, noise)
    assert actions.shape == (2, 5, 4)
    joined = torch.cat((observations, noise), dim=-1)
    torch.testing.assert_close(actions, actor.network(joined))
    assert not torch.allclose(actions, actor(observations, -noise))


def test_a_one_step_policy_takes_leading_axes() -> None:
    streams = RandomStreams([0, 1])
    actor = OneStepActor(2, 3, 4, (8,), layer_norm=True, streams=streams)
    observations, noise = (
        streams.normal(5, 3),
        torch.randn(6, 2, 5, 4, generator=torch.Generator().manual_seed(0)),
    )
    together = actor(observations, noise)
    for k in range(6):
        torch.testing.assert_close(together[k], actor(observations, noise[k]))


def test_a_frozen_network_gives_its_values_and_passes_gradient_to_inputs_alone() -> None:
    streams = RandomStreams([0])
    critic = CriticEnsemble(1, 3, 6, (8, 8), layer_norm=True, streams=streams)
    observations, actions = streams.normal(5, 4), streams.normal(5, 2).requires_grad_()
    plain, fixed = critic(observations, actions), frozen(critic)(observations, actions)
    assert torch.equal(plain, fixed)
    (expected,) = torch.autograd.grad(plain.sum(), actions)
    gradients = torch.autograd.grad(fixed.sum(), [actions, *critic.parameters()], allow_unused=True)
    torch.testing.assert_close(gradients[0], expected)
    assert all(gradient is None for gradient in gradients[1:])


def test_a_frozen_network_leaves_the_module_trainable() -> None:
    critic = CriticEnsemble(1, 2, 3, (4,), layer_norm=False, streams=RandomStreams([0]))
    x = torch.ones(1, 2, 3)
    frozen(critic)(x)
    assert all(p.requires_grad for p in critic.parameters())
    (gradient,) = torch.autograd.grad(critic(x).sum(), critic.biases[-1])
    assert float(gradient.abs().max()) > 0.0
