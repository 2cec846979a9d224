"""TRQAM in other discretisations of the memoryless SDE, and the KL of its endpoints."""

from typing import Any

import pytest
import torch
from torch import Tensor

from adjoint import _estimators
from bench.agents import Measuring, Problem, draw
from bench.agents.endpoint_kl import endpoint_kl
from flowsde import FollmerKernel
from qlearn import RandomStreams
from trustregion import LinearGaussian

from .conftest import Spy
from .small_agents import PROBLEM, ROWS, batch_of, build, played, train

SPREAD = (0.5, 0.2)


def follmer(seeds: list[int], **settings: Any) -> Any:
    problem = Problem(PROBLEM.observation_dim, PROBLEM.action_dim, PROBLEM.horizon, SPREAD)
    return build("trqam", seeds, problem, kernel="follmer", **settings)


@pytest.mark.usefixtures("double")
def test_path_adjoint_loss_and_kl_are_of_the_chosen_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = follmer([0, 1], learning_rate=1e-2)
    train(agent, [0, 1], 3)
    streams = RandomStreams([0, 1])
    batch, noise = batch_of(streams), draw(streams, agent.noise(ROWS))
    spy = Spy(monkeypatch).on(_estimators, "sample_path", "lean_adjoint")
    losses = agent.losses(batch, noise)
    path = spy.result("sample_path")

    # The Brownian form, written out: W = x t/(p (1-t)^2 + t^2), u = 1/p - 1/(p + s), s = r^2.
    sd = torch.tensor(SPREAD * PROBLEM.horizon)
    p, steps = sd**-2.0, agent.config.flow_steps
    fine = agent.fast.field(batch.observations)
    base = agent.target_slow.field(batch.observations)
    w = torch.zeros_like(noise["path_x0"])
    kl = torch.zeros_like(w[..., 0])
    for k in range(steps):
        t, later = k / steps, (k + 1) / steps
        x = w * (p * (1 - t) ** 2 + t**2) / t if k else noise["path_x0"]
        torch.testing.assert_close(path.inputs[k], x)
        times = torch.full(x.shape[:-1], t)
        s = (t / (1 - t)) ** 2
        u = 1 / p - 1 / (p + s)
        end = 1 / p - 1 / (p + (later / (1 - later)) ** 2) if k + 1 < steps else 1 / p
        dv = fine(x, times) - base(x, times)
        kl = kl + 0.5 * ((end - u) * ((p + s) * (1 - t) * dv).square()).sum(-1)
        q = (p + s) * (x + (1 - t) * fine(x, times) - w)
        w = w + q * (end - u) + (end - u).sqrt() * noise["path_noise"][:, k]
    torch.testing.assert_close(path.sample, w.detach())
    torch.testing.assert_close(losses["path_kl"], kl.mean(-1) / PROBLEM.horizon)
    # The adjoint's end is the critic's gradient at the end of this path.
    assert spy.argument("lean_adjoint", 2) is path


def test_the_scale_is_that_of_the_data_unless_given() -> None:
    kernel = follmer([0]).kernel
    assert isinstance(kernel, FollmerKernel)
    assert isinstance(kernel.scale, Tensor)
    assert kernel.scale.tolist() == pytest.approx(list(SPREAD * PROBLEM.horizon))
    assert follmer([0], kernel_scale=0.3).kernel.scale == 0.3
    assert build("trqam", [0], kernel="follmer").kernel.scale == 1.0
    constant = Problem(3, 1, 2, (0.0,))
    assert build("trqam", [0], constant, kernel="follmer").kernel.scale.tolist() == pytest.approx(
        [0.01, 0.01]
    )
    with pytest.raises(ValueError, match="kernel_scale"):
        follmer([0], kernel_scale=-1.0)


def test_trains_acts_and_packs() -> None:
    together = train(follmer([3, 8]), [3, 8], 3)
    agent = follmer([8])
    alone = train(agent, [8], 3)
    for name, value in alone.items():
        assert bool(value.isfinite().all()), name
        torch.testing.assert_close(together[name][1], value[0], rtol=1e-4, atol=1e-6)
    assert played(agent, [8]).shape == (1, 4, PROBLEM.chunk_dim)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("probes", [False, True])
def test_endpoint_kl_of_gaussians_has_its_closed_form(probes: bool) -> None:
    # Base N(m, s^2), reward c a at lambda: the tilted law's KL is s^2 c^2/(2 lambda^2).
    c = torch.tensor([1.0, -2.0, 0.5])
    law = LinearGaussian(0.3, 0.6, c)
    streams = RandomStreams([0])
    noise = streams.normal(64, 3)
    found = endpoint_kl(
        lambda x, t: law.optimal_velocity(x, t, 1.5),
        law.velocity,
        noise,
        40,
        streams.normal(2, 64, 3).movedim(1, 0).sign() if probes else None,
    )
    # log p_fine - log p_base is linear in the action: its mean over 64 of them has a spread.
    ratio = 0.6 * c / 1.5
    expected = 0.5 * ratio.square().sum() + (noise * ratio).sum(-1).mean()
    assert float(found) == pytest.approx(float(expected), rel=5e-3)


def test_measuring_is_off_unless_asked_for_and_disturbs_nothing() -> None:
    assert build("trqam", [0]).measured_rows == 0
    assert not isinstance(build("qam", [0]), Measuring)
    agent = build("trqam", [0, 1], endpoint_kl_samples=6)
    assert isinstance(build("trqam", [0]), Measuring)
    train(agent, [0, 1], 2)
    streams = RandomStreams([0, 1])
    before = {key: value.clone() for key, value in agent.state_dict().items()}
    batch = batch_of(streams)
    measured = agent.measure(batch, streams)
    assert measured["endpoint_kl"].shape == (2,)
    assert all(torch.equal(value, before[key]) for key, value in agent.state_dict().items())
    estimated = build("trqam", [0, 1], endpoint_kl_samples=6, endpoint_kl_probes=300)
    estimated.load_state_dict(agent.state_dict())
    again = RandomStreams([0, 1])
    torch.testing.assert_close(
        estimated.measure(batch_of(again), again)["endpoint_kl"],
        measured["endpoint_kl"],
        rtol=0.1,
        atol=2e-3,
    )
