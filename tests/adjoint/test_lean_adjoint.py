"""The lean adjoint against autograd, closed forms and its error policy."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from adjoint import lean_adjoint, terminal_gradient
from flowsde import (
    AdamsBashforthKernel,
    CosineInterpolant,
    FollmerKernel,
    MemorylessEuler,
    Path,
    sample_path,
)
from trustregion import LinearGaussian

KERNELS = {
    "euler": MemorylessEuler(7, adjoint_time="consistent"),
    "euler_cosine": MemorylessEuler(7, adjoint_time="consistent", interpolant=CosineInterpolant()),
    "euler_grid": MemorylessEuler(
        adjoint_time="consistent", grid=[1.0, 0.95, 0.88, 0.77, 0.61, 0.4, 0.2, 0.0]
    ),
    "follmer": FollmerKernel(7, scale=0.7),
    "follmer_grid": FollmerKernel(scale=0.7, grid=[0.0, 0.05, 0.12, 0.23, 0.39, 0.6, 0.8, 1.0]),
    "follmer_per_dimension": FollmerKernel(
        7, scale=torch.tensor([0.4, 1.0, 2.0], dtype=torch.float64)
    ),
}


def bent(x, t):
    """A nonlinear field that couples the dimensions."""
    mixed = x.roll(1, -1)
    return torch.sin(2.0 * x) * mixed - t[..., None] * x + 0.3 * mixed.square()


def sampled(kernel, shape, seed=0, velocity=bent):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    return sample_path(kernel, velocity, noise, generator=generator)


@pytest.mark.parametrize("name", KERNELS)
def test_it_is_the_derivative_of_the_end_in_every_state_at_fixed_noise(name):
    kernel = KERNELS[name]
    path = sampled(kernel, (4, 3))
    weights = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64).expand(4, 3)
    adjoints = lean_adjoint(kernel, bent, path, weights)
    for first in range(kernel.steps):
        start = path.states[first].clone().requires_grad_()
        state = start
        for k in range(first, kernel.steps):
            # Shift by the recorded residual instead of noise, so that every state is revisited.
            x = kernel.inputs(state, k)
            mean = kernel.mean(state, bent(x, state.new_full((4,), kernel.times[k])), k)
            state = mean + (path.states[k + 1] - mean.detach())
        (expected,) = torch.autograd.grad((state * weights).sum(), start)
        torch.testing.assert_close(adjoints[first], expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(adjoints[-1], weights)


def test_the_shifted_time_evaluates_the_base_one_step_later():
    path = sampled(MemorylessEuler(5), (3, 2))
    terminal = torch.ones(3, 2, dtype=torch.float64)
    shifted = lean_adjoint(MemorylessEuler(5), bent, path, terminal)
    consistent = lean_adjoint(
        MemorylessEuler(5, adjoint_time="consistent"),
        lambda x, t: bent(x, t + 0.2),
        path,
        terminal,
    )
    torch.testing.assert_close(shifted, consistent)
    assert not torch.allclose(
        shifted,
        lean_adjoint(MemorylessEuler(5, adjoint_time="consistent"), bent, path, terminal),
    )


@pytest.mark.parametrize("std", [0.3, 1.0, 2.5])
@pytest.mark.parametrize(
    "kernel_of",
    [
        MemorylessEuler,
        lambda steps: MemorylessEuler(steps, adjoint_time="consistent"),
        FollmerKernel,
    ],
    ids=["shifted", "consistent", "follmer"],
)
def test_it_is_the_closed_form_exactly_or_at_first_order(kernel_of, std):
    problem = LinearGaussian(mean=0.4, std=std)
    errors = []
    for steps in (64, 128, 256):
        kernel = kernel_of(steps)
        path = sampled(kernel, (5, 2), velocity=problem.velocity)
        terminal = -problem.reward_gradient(path.sample) * torch.ones_like(path.sample)
        adjoints = lean_adjoint(kernel, problem.velocity, path, terminal)
        worst = 0.0
        for t in (0.25, 0.5, 0.75):
            k = int(t * steps)
            # The adjoint of a kernel with states z, x = scale z, is scale times that in x.
            scale = kernel.coefficients.input_scales[k]
            exact = scale * problem.adjoint(terminal, torch.full((5,), t).double())
            worst = max(worst, float((adjoints[k] - exact).abs().max()))
        errors.append(worst)
    if isinstance(kernel, FollmerKernel):
        # Its Jacobians (P + s')/(P + s), P the data's precision, telescope: no error at any K.
        assert max(errors) < 1e-12
        return
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(0.85 < order < 1.2 for order in orders), (errors, orders)


@settings(deadline=None, max_examples=25)
@given(
    # Three batch axes and vectors of one axis are warned of as images.
    batch=st.lists(st.integers(1, 3), max_size=2),
    event=st.lists(st.integers(1, 3), max_size=3),
    steps=st.integers(1, 4),
)
def test_any_batch_and_event_shape(batch, event, steps):
    def field(x, t):
        return torch.tanh(x) + t.reshape(t.shape + (1,) * len(event))

    kernel = MemorylessEuler(steps, event_ndim=len(event))
    path = sampled(kernel, (*batch, *event), velocity=field)
    terminal = torch.randn_like(path.sample)
    adjoints = lean_adjoint(kernel, field, path, terminal)
    assert adjoints.shape == path.states.shape
    # An elementwise field: the flattened problem gives the same numbers.
    flat_kernel = MemorylessEuler(steps, event_ndim=0)
    flat = Path(
        states=path.states.reshape(steps + 1, -1),
        inputs=path.inputs.reshape(steps, -1),
        kernel=flat_kernel,
    )
    expected = lean_adjoint(
        flat_kernel,
        lambda x, t: torch.tanh(x) + t,
        flat,
        terminal.reshape(-1),
    )
    torch.testing.assert_close(adjoints.reshape(steps + 1, -1), expected)


def test_it_is_linear_in_the_terminal_and_independent_across_the_batch():
    kernel = FollmerKernel(4)
    path = sampled(kernel, (3, 2))
    one, two = torch.randn(2, 3, 2, dtype=torch.float64)
    total = lean_adjoint(kernel, bent, path, 2.0 * one - two)
    parts = 2.0 * lean_adjoint(kernel, bent, path, one) - lean_adjoint(kernel, bent, path, two)
    torch.testing.assert_close(total, parts)
    only_first = one * torch.tensor([[1.0], [0.0], [0.0]])
    adjoints = lean_adjoint(kernel, bent, path, only_first)
    assert torch.count_nonzero(adjoints[:, 1:]) == 0
    assert torch.count_nonzero(adjoints[:-1, 0]) > 0


def test_parameters_get_no_gradient_and_no_grad_mode_does_not_matter():
    torch.manual_seed(0)
    net = nn.Linear(3, 2)

    def field(x, t):
        return net(torch.cat([x, t[..., None]], -1))

    kernel = MemorylessEuler(3)
    with torch.no_grad():
        path = sample_path(kernel, field, torch.randn(4, 2))
        inside = lean_adjoint(kernel, field, path, torch.ones(4, 2))
    outside = lean_adjoint(kernel, field, path, torch.ones(4, 2))
    assert torch.equal(inside, outside)
    assert not outside.requires_grad
    assert all(p.grad is None for p in net.parameters())


class LinearizedBent:
    """`bent` with a pullback for all steps, from one evaluation along the path."""

    def __init__(self):
        self.evaluations = 0

    def __call__(self, x, t):
        raise AssertionError("evaluated although it can be linearized")

    def linearize(self, x, t):
        self.evaluations += 1
        values, pullback = torch.func.vjp(lambda x: bent(x, t), x)

        def at(cotangent, k):
            everywhere = torch.zeros_like(x)
            everywhere[k] = cotangent
            return pullback(everywhere)[0][k]

        return values, at


@pytest.mark.parametrize("name", KERNELS)
def test_a_field_that_can_be_linearized_is_evaluated_once_and_gives_the_same(name):
    kernel = KERNELS[name]
    path = sampled(kernel, (4, 3))
    terminal = torch.linspace(-1.0, 1.0, 12, dtype=torch.float64).reshape(4, 3)
    field = LinearizedBent()
    torch.testing.assert_close(
        lean_adjoint(kernel, field, path, terminal), lean_adjoint(kernel, bent, path, terminal)
    )
    assert field.evaluations == 1


def test_a_linearized_field_is_asked_at_the_adjoint_times():
    kernel, times = MemorylessEuler(4), []

    class Recorder(LinearizedBent):
        def linearize(self, x, t):
            times.append(t)
            return super().linearize(x, t)

    path = sampled(kernel, (3, 2))
    terminal = torch.ones(3, 2, dtype=torch.float64)
    lean_adjoint(kernel, Recorder(), path, terminal)
    expected = torch.tensor([0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(times[0], expected[:, None].expand(4, 3))


def test_a_field_without_gradient_in_x_is_told_from_a_detached_one():
    kernel = MemorylessEuler(3)
    path = sampled(kernel, (2, 2))
    terminal = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"detached or evaluated under torch\.no_grad"):
        lean_adjoint(kernel, lambda x, t: bent(x, t).detach(), path, terminal)
    shift = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    adjoints = lean_adjoint(kernel, lambda x, t: shift.expand_as(x), path, terminal)
    decays = torch.tensor(kernel.coefficients.decays)
    expected = torch.stack([decays[k:].prod() for k in range(4)]).double()
    torch.testing.assert_close(adjoints[:, 0, 0], expected, rtol=1e-6, atol=1e-9)


def test_shapes_that_do_not_fit_are_refused():
    kernel = MemorylessEuler(3)
    path = sampled(kernel, (2, 2))
    terminal = torch.ones(2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="the path has 3 steps, the kernel 4"):
        lean_adjoint(MemorylessEuler(4), bent, path, terminal)
    with pytest.raises(ValueError, match=r"terminal has shape \(2,\)"):
        lean_adjoint(kernel, bent, path, terminal[0])
    with pytest.raises(ValueError, match=r"returned shape \(2,\)"):
        lean_adjoint(kernel, lambda x, t: bent(x, t).sum(-1), path, terminal)


@pytest.mark.parametrize("kernel", [MemorylessEuler(4), AdamsBashforthKernel(4)])
def test_it_runs_under_vmap(kernel) -> None:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    start = torch.randn(2, 5, 3, dtype=torch.float64, generator=generator)
    steps = torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=generator)

    def adjoints(x0: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return torch.tanh(x @ mixing) + t[..., None]

        with torch.no_grad():
            path = sample_path(kernel, field, x0, noise)
        return lean_adjoint(kernel, field, path, terminal_gradient(lambda x: x.cos(), path.sample))

    each = torch.stack([adjoints(*pair) for pair in zip(start, steps, strict=True)])
    torch.testing.assert_close(torch.func.vmap(adjoints)(start, steps), each)
