import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlearn import GaussianActor, RandomStreams, TanhGaussian

NUMBER = st.floats(-3, 3)


def test_published_edit_policy(edit) -> None:
    config = edit.config
    size = config["full_action_dim"]
    actor = GaussianActor(
        1,
        config["obs_dim"] + size,
        size,
        config["actor_hidden_dims"],
        streams=RandomStreams([0]),
    )
    state = {f"network.{name}": value for name, value in edit.network("edit_actor").items()}
    heads = "init/edit_actor/{}/{}"
    for kind, part in (("kernels", "kernel"), ("biases", "bias")):
        both = [edit[heads.format(head, part)] for head in ("mean", "log_std")]
        state[f"network.{kind}.4"] = torch.cat(both, -1)[None]
    actor.load_state_dict(state)
    law = actor(edit["batch/observations"][None], edit["expect/edit_flow_action"][None])
    sample, log_prob = law.sample(edit["noise/edit"][None])
    for mine, name in (
        (law.mean, "edit_mean"),
        (law.std, "edit_std"),
        (sample, "edit_sample"),
        (log_prob, "edit_log_prob"),
    ):
        expected = edit[f"expect/{name}"]
        torch.testing.assert_close(
            mine[0], expected, rtol=0, atol=1e-5 * float(expected.abs().max())
        )


@given(NUMBER, NUMBER, NUMBER)
def test_log_density_agrees_with_the_change_of_variables(
    mean: float, log_std: float, noise: float
) -> None:
    law = TanhGaussian(*(torch.tensor([v], dtype=torch.float64) for v in (mean, log_std)))
    action, log_prob = law.sample(torch.tensor([noise], dtype=torch.float64))
    u = mean + math.exp(log_std) * noise
    if abs(u) > 6:
        return  # tanh(u) rounds and the naive formula below loses its digits
    normal = -(noise**2) / 2 - log_std - math.log(2 * math.pi) / 2
    assert float(action) == pytest.approx(math.tanh(u))
    assert float(log_prob) == pytest.approx(normal - math.log(1 - math.tanh(u) ** 2), abs=1e-6)


def test_density_integrates_to_one() -> None:
    """Integral over the action, by the substitution u = artanh(action)."""
    u = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    mean, log_std = torch.tensor([0.3]), torch.tensor([-0.5])
    law = TanhGaussian(mean.double(), log_std.double())
    _, log_prob = law.sample(((u - law.mean) / law.std)[:, None])
    integrand = log_prob.exp() / u.cosh() ** 2
    assert float(torch.trapezoid(integrand, u)) == pytest.approx(1.0, abs=1e-6)


def test_density_and_gradient_are_finite_where_tanh_rounds_to_one() -> None:
    mean = torch.tensor([40.0, -40.0, 0.0], requires_grad=True)
    log_std = torch.tensor([2.0, -20.0, -20.0], requires_grad=True)
    law = TanhGaussian(mean, log_std)
    action, log_prob = law.sample(torch.tensor([1.0, -2.0, 0.5]))
    assert action[0] == 1.0
    assert log_prob.isfinite()
    log_prob.backward()
    assert mean.grad.isfinite().all()
    assert log_std.grad.isfinite().all()


def test_entropy_gradient_is_that_of_the_reparameterised_density() -> None:
    """d/dmean of log p at fixed noise is 2 tanh(u): only the squashing moves."""
    mean = torch.tensor([0.4, -1.2], dtype=torch.float64, requires_grad=True)
    law = TanhGaussian(mean, torch.tensor([-0.3, 0.2], dtype=torch.float64))
    action, log_prob = law.sample(torch.tensor([0.7, -0.1], dtype=torch.float64))
    log_prob.backward()
    torch.testing.assert_close(mean.grad, 2 * action.detach())


def test_an_action_of_size_one_and_the_mode() -> None:
    actor = GaussianActor(2, 3, 1, (8,), streams=RandomStreams([0, 1]))
    law = actor(torch.randn(5, 2, 4, 3))
    assert law.mean.shape == law.log_std.shape == (5, 2, 4, 1)
    assert torch.equal(law.mode, law.mean.tanh())
    action, log_prob = law.sample(torch.zeros(5, 2, 4, 1))
    assert torch.equal(action, law.mode)
    assert log_prob.shape == (5, 2, 4)


def test_log_std_is_clamped() -> None:
    actor = GaussianActor(1, 1, 1, (), streams=RandomStreams([0]))
    with torch.no_grad():
        actor.network.kernels[0].fill_(100.0)
    law = actor(torch.tensor([[[1.0], [-1.0]]]))
    assert law.log_std.flatten().tolist() == [2.0, -20.0]


def test_heads_start_within_the_bounds_of_a_layer_each() -> None:
    actor = GaussianActor(1, 4, 30, (50,), streams=RandomStreams([0]))
    bound = math.sqrt(6 / (50 + 30))
    assert 0.99 * bound < actor.network.kernels[1].abs().max() <= bound * (1 + 1e-6)
