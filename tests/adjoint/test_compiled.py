"""A whole update traces into one graph and gives the numbers of eager mode."""

import pytest
import torch
from torch import nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import (
    AdamsBashforthKernel,
    FollmerKernel,
    MemorylessEuler,
    sample_path,
    velocities_along,
)
from trustregion import DualDescent, LinearBudget, path_kl, solve_lambda


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 16), nn.GELU(), nn.Linear(16, 2))


def field(net):
    return lambda x, t: net(torch.cat([x, t[..., None]], -1))


# Tracing is what can fail; the `eager` backend runs the traced graph without a C++ compiler.
@pytest.mark.parametrize(
    "kernel",
    [MemorylessEuler(2), FollmerKernel(2), AdamsBashforthKernel(3)],
    ids=["euler", "follmer", "adams_bashforth"],
)
def test_one_graph_equal_to_eager(kernel):
    fine, base = network(0), network(1).requires_grad_(False)
    dual = DualDescent(budget=LinearBudget(0.5, 1.0, 10))
    noise = torch.randn(5, 2), torch.randn(kernel.steps, 5, 2)

    def update(start, steps):
        with torch.no_grad():
            path = sample_path(kernel, field(fine), start, steps, final_velocity=field(base))
            base_velocities = velocities_along(kernel, field(base), path)
        reward = terminal_gradient(lambda x: -x.square().sum(-1), path.sample, clip=(-1.0, 1.0))
        adjoints = lean_adjoint(kernel, field(base), path, -reward)
        velocities = velocities_along(kernel, field(fine), path)
        loss = matching_loss(kernel, velocities, base_velocities, adjoints, dual.lambda_).mean()
        kl = path_kl(kernel, velocities.detach(), base_velocities).mean()
        return loss, adjoints, dual.update(kl[None])["lambda"]

    eager = update(*noise)
    eager_gradient = torch.autograd.grad(eager[0], list(fine.parameters()))
    dual.load_state_dict(DualDescent(budget=0.5).state_dict())
    torch._dynamo.reset()
    compiled = torch.compile(update, fullgraph=True, backend="eager")(*noise)
    compiled_gradient = torch.autograd.grad(compiled[0], list(fine.parameters()))
    torch.testing.assert_close(compiled, eager)
    torch.testing.assert_close(compiled_gradient, eager_gradient)


def test_the_solver_traces_into_one_graph():
    q = torch.randn(3, 64)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda q: solve_lambda(q, 0.3, shared=0), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(compiled(q), solve_lambda(q, 0.3, shared=0))
