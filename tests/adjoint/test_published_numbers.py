"""Adjoint and matching loss against the numbers of the published TRQAM implementation."""

import json
from pathlib import Path as File

import numpy as np
import pytest
import torch

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import MemorylessEuler, Path, sample_path, velocities_along

REFERENCE = File(__file__).parents[1] / "reference"
# Rounding of float32; the reference's README measures 1.5e-6 between two frameworks.
LIMIT = 1e-5


class Numbers:
    """One reference file: arrays as tensors, and the networks it stores."""

    def __init__(self, name):
        self.arrays = np.load(REFERENCE / f"{name}.npz", allow_pickle=False)
        self.config = json.loads(str(self.arrays["config"]))

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def mlp(self, net, inputs):
        """Dense, tanh-GELU, optional LayerNorm per hidden layer; leading axes broadcast."""
        depth = sum(
            k.startswith(f"init/{net}/dense") and k.endswith("kernel") for k in self.arrays.files
        )
        y = inputs
        for i in range(depth):
            y = y @ self[f"init/{net}/dense{i}/kernel"] + self._bias(net, f"dense{i}", y)
            if i == depth - 1:
                return y
            y = torch.nn.functional.gelu(y, approximate="tanh")
            if f"init/{net}/ln{i}/scale" in self.arrays.files:
                y = torch.nn.functional.layer_norm(y, y.shape[-1:], eps=1e-6)
                scale = self[f"init/{net}/ln{i}/scale"]
                scale = scale.unsqueeze(-2) if scale.ndim == 2 else scale
                y = y * scale + self._bias(net, f"ln{i}", y)
        raise AssertionError(f"{net} has no layers")

    def _bias(self, net, layer, y):
        bias = self[f"init/{net}/{layer}/bias"]
        return bias.unsqueeze(-2) if bias.ndim == 2 else bias

    def actor(self, net):
        observations = self["batch/observations"]

        def velocity(x, t):
            rows = observations.expand(*x.shape[:-1], -1)
            return self.mlp(net, torch.cat([rows, x, t[..., None]], -1))

        return velocity

    def mean_target_q(self, action):
        rows = torch.cat([self["batch/observations"], action], -1)
        return self.mlp("target_critic", rows).squeeze(-1).mean(0)

    def error(self, value, key):
        expected = self[key]
        assert value.shape == expected.shape, key
        return float((value - expected).abs().max() / expected.abs().max())


@pytest.fixture(params=["A1_trqam", "A2_trqam_chunked"])
def numbers(request):
    return Numbers(request.param)


def test_path_terminal_gradient_and_adjoint(numbers):
    kernel = MemorylessEuler(numbers.config["flow_steps"])
    fast, base = numbers.actor("actor_fast"), numbers.actor("target_actor_slow")
    path = sample_path(
        kernel, fast, numbers["noise/sde_x0"], numbers["noise/sde_steps"], final_velocity=base
    )
    assert numbers.error(path.inputs, "expect/sde_xs") < LIMIT
    assert numbers.error(path.sample, "expect/sde_x1") < LIMIT
    gradient = terminal_gradient(numbers.mean_target_q, path.sample, clip=(-1.0, 1.0))
    assert numbers.error(gradient, "expect/critic_grad") < LIMIT
    adjoints = lean_adjoint(kernel, base, path, -gradient)
    assert numbers.error(adjoints[-1], "expect/adj_init") < LIMIT
    assert numbers.error(adjoints[:-1], "expect/adjs") < LIMIT


def test_matching_loss(numbers):
    kernel = MemorylessEuler(numbers.config["flow_steps"])
    adjoints = torch.cat([numbers["expect/adjs"], numbers["expect/adj_init"][None]])
    lam = float(numbers["state/lambda_before"])
    loss = matching_loss(kernel, numbers["expect/v_fine"], numbers["expect/v_base"], adjoints, lam)
    assert numbers.error(loss.mean(), "expect/adj_loss") < LIMIT
    # The same number from the networks: one batched call over the stored path.
    states = torch.cat([numbers["expect/sde_xs"], numbers["expect/sde_x1"][None]])
    path = Path(states=states, inputs=states[:-1], kernel=kernel)
    fine = velocities_along(kernel, numbers.actor("actor_fast"), path)
    base = velocities_along(kernel, numbers.actor("target_actor_slow"), path)
    assert numbers.error(fine, "expect/v_fine") < LIMIT
    assert numbers.error(base, "expect/v_base") < LIMIT
    loss = matching_loss(kernel, fine, base, adjoints, lam)
    assert numbers.error(loss.mean(), "expect/adj_loss") < LIMIT
