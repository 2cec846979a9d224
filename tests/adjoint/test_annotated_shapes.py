"""The shapes in the signatures hold: a whole update with every call checked at run time.

In a process of its own, because the checker rewrites the packages for as long as they are loaded
and `torch.compile` cannot trace rewritten dataclasses.
"""

import subprocess
import sys

CHECKED_UPDATE = """
from jaxtyping import TypeCheckError, install_import_hook

with install_import_hook(["flowsde", "adjoint", "trustregion"], "beartype.beartype"):
    import adjoint, flowsde, trustregion
import torch

for batch, event in (((), (2,)), ((3,), (2,)), ((2, 3), (4,)), ((3,), (1, 2, 2)), ((5,), ())):
    for kernel in (
        flowsde.MemorylessEuler(3, event_ndim=len(event)),
        flowsde.FollmerKernel(3, event_ndim=len(event), scale=torch.full(event, 0.5)),
    ):
        problem = trustregion.LinearGaussian(0.1, 0.5, 1.0, event_ndim=len(event))
        noise = torch.randn(*batch, *event)
        path = flowsde.sample_path(kernel, problem.velocity, noise)
        terminal = -adjoint.terminal_gradient(problem.reward, path.sample, clip=(-1.0, 1.0))
        adjoints = adjoint.lean_adjoint(kernel, problem.velocity, path, terminal)
        base = flowsde.velocities_along(kernel, problem.velocity, path)
        fine = base + 0.1
        lam = torch.ones(batch)
        assert adjoint.matching_loss(kernel, fine, base, adjoints, lam).shape == batch
        some = adjoint.matching_loss(kernel, fine[1:], base[1:], adjoints, steps=[1, 2])
        assert some.shape == batch
        kl = trustregion.path_kl(kernel, fine, base)
        assert kl.shape == batch
        assert trustregion.path_kl_steps(kernel, fine, base, noisy_only=True).shape[1:] == batch

q = torch.randn(2, 3, 8)
assert trustregion.tilted_kl(q, torch.ones(3), dim=-1).shape == (2, 3)
assert trustregion.tilted_kl_derivative(q, torch.ones(2, 8), dim=1).shape == (2, 8)
assert trustregion.dual_function(q, 1.0, torch.ones(2, 1)).shape == (2, 3)
assert trustregion.solve_lambda(q, 0.1, shared=1).shape == (2,)
dual = trustregion.DualDescent(2, budget=trustregion.CosineBudget(0.1, 1.0, 5))
assert dual.update(torch.ones(2))["lambda"].shape == dual.lambda_.shape == (2,)

try:
    trustregion.path_kl(kernel, fine, base[..., :1])
except TypeCheckError:
    print("checked")
"""


def test_a_whole_update_in_every_shape():
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECKED_UPDATE],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    # The last call has shapes that do not fit; had nothing been checked, it would say so otherwise.
    assert run.stdout.strip() == "checked"
