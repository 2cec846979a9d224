"""Molecule-like data: sets of points of different size, an equivariant network, a known optimum.

Samples are (points, 3), padded to the largest set, with a mask of the points that exist. The base
is the flow of points with standard deviation 0.8 around the origin, in closed form; the reward is
compactness, -|x|^2 summed over the points. So the optimum of adjoint matching is known: points of
standard deviation (1/0.8^2 + 2 c/lambda)^(-1/2), and a KL that is proportional to their number.

    uv run python examples/point_sets.py            # half a minute on one core
"""

import torch
from torch import Tensor, nn

from adjoint import lean_adjoint, matching_loss, terminal_gradient
from flowsde import AdamsBashforthKernel, VelocityField, ode_sample, sample_path, velocities_along
from trustregion import LinearGaussian, path_kl

LARGEST, SPREAD, COMPACTNESS, LAMBDA = 5, 0.8, 1.0, 2.0
PROBLEM = LinearGaussian(mean=0.0, std=SPREAD, slope=0.0, curvature=2.0 * COMPACTNESS)


class Equivariant(nn.Module):
    """A velocity that turns with the points and does not care for their order.

    `v_i = psi(|x_i|^2, t) x_i + mean_j phi(|x_i - x_j|^2, t) (x_i - x_j)`, as in E(n) equivariant
    graph networks (Satorras et al., arXiv 2102.09844), over the points that exist.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.own, self.pair = (
            nn.Sequential(nn.Linear(4, width), nn.SiLU(), nn.Linear(width, 1)) for _ in range(2)
        )
        for head in (self.own[-1], self.pair[-1]):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, x: Tensor, t: Tensor, mask: Tensor) -> Tensor:
        """Velocity at points x (*batch, N, 3), times t (*batch), mask (*batch, N)."""
        x = torch.where(mask[..., None], x, 0.0)
        between = x.unsqueeze(-2) - x.unsqueeze(-3)  # (*batch, N, N, 3)
        weights = self.pair(_features(between, t[..., None, None]))
        exists = mask[..., None, :, None].to(x.dtype)
        mean = (exists * weights * between).sum(-2) / exists.sum(-2)
        v: Tensor = self.own(_features(x, t[..., None])) * x + mean
        return v


def _features(x: Tensor, t: Tensor) -> Tensor:
    """Squared length, and time in a form that changes quickly."""
    length = x.square().sum(-1)
    t = torch.pi * t.expand(length.shape)
    waves = (t.cos(), (2.0 * t).cos(), (3.0 * t).cos())
    return torch.stack([length.clamp(max=9.0), *waves], -1)


def base(x: Tensor, t: Tensor) -> Tensor:
    """Velocity of points of standard deviation 0.8."""
    t = t[..., None, None]
    slope = (t * SPREAD**2 - (1.0 - t)) / (t.square() * SPREAD**2 + (1.0 - t).square())
    return slope * x


def masks(sizes: Tensor) -> Tensor:
    """True where a point exists, (B, N, 1): broadcasts over the coordinates."""
    return (torch.arange(LARGEST) < sizes[:, None])[..., None]


def fine_field(network: Equivariant, sizes: Tensor) -> VelocityField:
    """The base and what the network adds."""
    exists = masks(sizes)[..., 0]
    return lambda x, t: base(x, t) + network(x, t, exists.expand(x.shape[:-1]))


def fine_tune(updates: int = 200, seed: int = 0) -> Equivariant:
    """Adjoint matching on sets of 2 to 5 points, padded points masked."""
    torch.manual_seed(seed)
    network, kernel = Equivariant(), AdamsBashforthKernel(8, event_ndim=2, scale=SPREAD, spread=2.0)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-2)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, updates)
    for _ in range(updates):
        sizes = torch.randint(2, LARGEST + 1, (64,))
        mask, fine = masks(sizes), fine_field(network, sizes)

        def reward(x: Tensor, mask: Tensor = mask) -> Tensor:
            return -COMPACTNESS * torch.where(mask, x, 0.0).square().sum((-2, -1))

        with torch.no_grad():
            path = sample_path(kernel, fine, torch.randn(64, LARGEST, 3))
            before = velocities_along(kernel, base, path)
        adjoints = lean_adjoint(kernel, base, path, -terminal_gradient(reward, path.sample))
        after = velocities_along(kernel, fine, path)
        loss = matching_loss(kernel, after, before, adjoints, LAMBDA, mask=mask).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        decay.step()
    return network.requires_grad_(False)


def results(network: Equivariant, count: int = 4000) -> list[tuple[int, float, float]]:
    """Size, standard deviation of the points, and path KL of the sets of that size."""
    kernel = AdamsBashforthKernel(8, event_ndim=2, scale=SPREAD, spread=2.0)
    rows = []
    for size in range(2, LARGEST + 1):
        sizes = torch.full((count,), size)
        fine, mask = fine_field(network, sizes), masks(sizes)
        path = sample_path(kernel, fine, torch.randn(count, LARGEST, 3))
        at_fine, at_base = (velocities_along(kernel, f, path) for f in (fine, base))
        drawn = ode_sample(fine, torch.randn(count, LARGEST, 3), 12, "heun", event_ndim=2)
        kl = path_kl(kernel, at_fine, at_base, mask=mask).mean()
        rows.append((size, float(drawn[mask.expand(drawn.shape)].std()), float(kl)))
    return rows


def main() -> None:
    width = float(PROBLEM.tilted_std(LAMBDA))
    each = 3.0 * float(PROBLEM.optimal_kl(LAMBDA))
    print("| points | standard deviation | of the optimum | path KL (nats) | of the optimum |")
    print("|---|---|---|---|---|")
    for size, std, kl in results(fine_tune()):
        print(f"| {size} | {std:.3f} | {width:.3f} | {kl:.2f} | {size * each:.2f} |")


if __name__ == "__main__":
    main()
