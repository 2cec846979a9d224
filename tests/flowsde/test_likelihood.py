import itertools

import pytest
import torch
from torch import Tensor

from flowsde import (
    CosineInterpolant,
    LinearInterpolant,
    ode_log_prob,
    ode_sample,
    ode_sample_log_prob,
)


def rotational(x: Tensor, t: Tensor) -> Tensor:
    """A non-linear field with a full Jacobian in three dimensions."""
    mixing = torch.tensor(
        [[0.2, -0.7, 0.1], [0.5, 0.3, -0.2], [-0.4, 0.6, -0.1]], dtype=x.dtype, device=x.device
    )
    return torch.tanh(x @ mixing.T) + t[..., None] * 0.1 * x


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
def test_gaussian_data_have_their_density(path, gaussian, generator) -> None:
    data = gaussian(0.7, 0.4, path)
    x = 0.7 + 0.4 * torch.randn(16, 2, 3, dtype=torch.float64, generator=generator)
    law = torch.distributions.Normal(
        torch.tensor(0.7, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    )
    exact = law.log_prob(x).sum((-2, -1))
    errors = []
    for steps in (50, 100, 200):
        density = ode_log_prob(data.velocity, x, steps, event_ndim=2)
        errors.append(float((density.log_prob - exact).abs().max()))
    assert errors[-1] < 0.01
    for before, after in itertools.pairwise(errors):
        assert before / after == pytest.approx(4.0, rel=0.15)
    torch.testing.assert_close(density.noise, (x - 0.7) / 0.4, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun"])
def test_matches_the_determinant_of_the_flow(method, generator) -> None:
    """The density of an arbitrary flow from the Jacobian of its discrete map."""
    noise = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    result = ode_sample_log_prob(rotational, noise, 400, method)

    def flow(point: Tensor) -> Tensor:
        return ode_sample(rotational, point[None], 400, method)[0]

    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(flow, noise[i])
        start = torch.distributions.Normal(0.0, 1.0).log_prob(noise[i]).sum()
        expected = start - torch.linalg.slogdet(jacobian).logabsdet
        assert float(result.log_prob[i]) == pytest.approx(float(expected), abs=2e-3)
        torch.testing.assert_close(result.sample[i], flow(noise[i]))


def test_forwards_and_backwards_agree(generator) -> None:
    noise = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    forward = ode_sample_log_prob(rotational, noise, 200)
    backward = ode_log_prob(rotational, forward.sample, 200)
    torch.testing.assert_close(backward.noise, noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(backward.log_prob, forward.log_prob, rtol=1e-4, atol=1e-4)


def test_hutchinson_over_all_sign_vectors_is_exact(generator) -> None:
    noise = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)), dtype=torch.float64)
    exact = ode_sample_log_prob(rotational, noise, 20)
    averaged = ode_sample_log_prob(
        rotational,
        noise,
        20,
        divergence="hutchinson",
        probes=signs[:, None, :].expand(8, 5, 3),
    )
    torch.testing.assert_close(averaged.log_prob, exact.log_prob)
    one = ode_sample_log_prob(
        rotational, noise, 20, divergence="hutchinson", generator=torch.Generator().manual_seed(0)
    )
    assert (one.log_prob - exact.log_prob).abs().max() > 1e-3
    again = ode_sample_log_prob(
        rotational, noise, 20, divergence="hutchinson", generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(one.log_prob, again.log_prob)


def test_measures_the_endpoint_divergence_of_two_flows(gaussian, generator) -> None:
    """N(m + d, s^2) against N(m, s^2): KL = d^2/(2 s^2)."""
    fine, base = gaussian(0.9, 0.5).velocity, gaussian(0.6, 0.5).velocity
    noise = torch.randn(500, 1, dtype=torch.float64, generator=generator)
    density = ode_sample_log_prob(fine, noise, 40)
    ratio = density.log_prob - ode_log_prob(base, density.sample, 40).log_prob
    error = 4.0 * float(ratio.std()) / 500**0.5
    assert float(ratio.mean()) == pytest.approx(0.3**2 / (2 * 0.5**2), abs=error)
    assert error < 0.12


def test_works_under_no_grad_and_leaves_no_graph() -> None:
    layer = torch.nn.Linear(2, 2)
    noise = torch.ones(3, 2, requires_grad=True)
    with torch.no_grad():
        result = ode_sample_log_prob(lambda x, t: layer(x), noise, 2)
    assert not result.log_prob.requires_grad
    assert not result.sample.requires_grad
    assert not result.noise.requires_grad
    outside = ode_log_prob(lambda x, t: layer(x), result.sample, 2)
    assert not outside.log_prob.requires_grad


def test_scalar_events_and_dtypes() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        result = ode_log_prob(lambda x, t: -x, torch.zeros(3, dtype=dtype), 4, event_ndim=0)
        assert result.log_prob.shape == (3,)
        assert result.log_prob.dtype == dtype


def test_bad_arguments_are_refused() -> None:
    x = torch.zeros(3, 2)

    def detached(x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return -x

    with pytest.raises(ValueError, match="no gradient in x"):
        ode_log_prob(detached, x, 2)
    with pytest.raises(ValueError, match="'exact' or 'hutchinson', got 'skilling'"):
        ode_log_prob(lambda x, t: x, x, 2, divergence="skilling")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave out probes and generator"):
        ode_log_prob(lambda x, t: x, x, 2, generator=torch.Generator())
    for shape in ((3, 2), (0, 3, 2), (1, 3, 1)):
        with pytest.raises(ValueError, match="expected \\(P, \\*shape\\)"):
            ode_log_prob(lambda x, t: x, x, 2, divergence="hutchinson", probes=torch.ones(shape))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1"):
        ode_log_prob(lambda x, t: x, x, 0)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"use torch\.no_grad"):
        ode_log_prob(lambda x, t: x, x, 2)


@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_it_runs_under_vmap_and_compile(divergence, generator) -> None:
    x = torch.randn(2, 4, 3, dtype=torch.float64, generator=generator)
    probes = torch.randn(2, 1, 4, 3, dtype=torch.float64, generator=generator)

    def log_prob(x: Tensor, probes: Tensor) -> Tensor:
        given = {"probes": probes} if divergence == "hutchinson" else {}
        with torch.no_grad():  # as in an evaluation
            return ode_log_prob(rotational, x, 4, divergence=divergence, **given).log_prob

    each = torch.stack([log_prob(*pair) for pair in zip(x, probes, strict=True)])
    torch.testing.assert_close(torch.func.vmap(log_prob)(x, probes), each)
    compiled = torch.compile(log_prob, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x[0], probes[0]), each[0])
