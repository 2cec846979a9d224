"""Peak memory of one adjoint-matching update of an image model, the naive way and with savings.

Every tensor that an operation allocates is counted for as long as it lives, so the numbers are the
same on every machine and of the kind that a GPU's allocator reports. Parameters and the sampled
path are there in every variant and are not counted.

    uv run python examples/adjoint_memory.py            # about a minute on one core

prints the table that docs/adjoint.md shows.
"""

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from adjoint import accumulate_gradients, lean_adjoint, matching_loss
from flowsde import FollmerKernel, Path, module_field, sample_path, velocities_along


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the tensors that operations inside allocate: alive now, and at most.

    Attributes:
        live: Bytes alive.
        peak: Largest `live` so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(x.untyped_storage()) for x in args if isinstance(x, Tensor)}
        result = func(*args, **(kwargs or {}))
        for output in result if isinstance(result, tuple | list) else (result,):
            if isinstance(output, Tensor):
                storage = output.untyped_storage()
                if id(storage) not in given and storage not in self._known:
                    self._known.add(storage)
                    self._change(storage.nbytes())
                    weakref.finalize(storage, self._change, -storage.nbytes())
        return result

    def _change(self, size: int) -> None:
        self.live += size
        self.peak = max(self.peak, self.live)


class ResidualNetwork(nn.Module):
    """A plain image network: convolutions with residuals, the time as one more channel."""

    def __init__(self, width: int, blocks: int, checkpointed: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
                nn.SiLU(), nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.last = nn.Conv2d(width, 3, 3, padding=1)
        self.checkpointed = checkpointed

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at x (B, 3, H, W), t (B,)."""
        time = t[:, None, None, None].expand(-1, 1, *x.shape[2:])
        y = self.first(torch.cat([x, time], 1))
        for block in self.blocks:
            y = y + (checkpoint(block, y, use_reentrant=False) if self.checkpointed else block(y))
        v: Tensor = self.last(y)
        return v


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the update that is measured.

    Attributes:
        size: Height and width of the images.
        batch: Images per update.
        steps: Transitions K.
        subset: Time steps that a random subset keeps.
        width: Channels.
        blocks: Residual blocks.
    """

    size: int = 16
    batch: int = 4
    steps: int = 16
    subset: int = 4
    width: int = 32
    blocks: int = 6


@dataclass(frozen=True, slots=True)
class Measured:
    """One variant of the update.

    Attributes:
        name: Name of the variant.
        peak: Peak of allocated bytes.
        gradient: Gradient of all parameters, flat; empty for the adjoint alone.
    """

    name: str
    peak: int
    gradient: Tensor


def unrolled_adjoint(
    kernel: FollmerKernel, base: nn.Module, path: Path, terminal: Tensor
) -> Tensor:
    """The adjoint by one backward pass through the drift of all steps, graph and all."""
    field = module_field(base, event_ndim=3)
    states = [state.detach().requires_grad_() for state in path.states[:-1]]
    means = []
    for k, state in enumerate(states):
        x = kernel.inputs(state, k)
        means.append(kernel.mean(state, field(x, x.new_full(x.shape[:1], kernel.times[k])), k))
    adjoints = [terminal]
    for state, mean in zip(reversed(states), reversed(means), strict=True):
        adjoints.append(torch.autograd.grad(mean, state, adjoints[-1], retain_graph=True)[0])
    return torch.stack(adjoints[::-1])


def measure(sizes: Sizes, seed: int = 0) -> list[Measured]:
    """All variants on the same path."""
    torch.manual_seed(seed)
    base = ResidualNetwork(sizes.width, sizes.blocks).requires_grad_(False)
    kernel = FollmerKernel(sizes.steps, event_ndim=3, scale=0.5)
    field = module_field(base, event_ndim=3)
    with torch.no_grad():
        noise = torch.randn(sizes.batch, 3, sizes.size, sizes.size)
        path = sample_path(kernel, field, noise)
    terminal = path.sample - 1.0  # the reward is -|x - 1|^2 / 2
    subset = torch.randperm(sizes.steps)[: sizes.subset].tolist()

    def network(checkpointed: bool) -> ResidualNetwork:
        fine = ResidualNetwork(sizes.width, sizes.blocks, checkpointed)
        fine.load_state_dict(copy.deepcopy(base.state_dict()))
        return fine

    def naive(fine: ResidualNetwork) -> None:
        regress(fine, unrolled_adjoint(kernel, base, path, terminal))

    def regress(fine: ResidualNetwork, adjoints: Tensor) -> None:
        with torch.no_grad():
            at_base = velocities_along(kernel, field, path)
        at_fine = velocities_along(kernel, module_field(fine, event_ndim=3), path)
        torch.autograd.backward(matching_loss(kernel, at_fine, at_base, adjoints).mean())

    def adjoint_in_one_graph(_: ResidualNetwork) -> None:
        unrolled_adjoint(kernel, base, path, terminal)

    def adjoint_per_step(_: ResidualNetwork) -> None:
        lean_adjoint(kernel, field, path, terminal)

    def per_step(fine: ResidualNetwork) -> None:
        regress(fine, lean_adjoint(kernel, field, path, terminal))

    def accumulated(chunk: int, steps: list[int] | None) -> Callable[[ResidualNetwork], None]:
        def update(fine: ResidualNetwork) -> None:
            adjoints = lean_adjoint(kernel, field, path, terminal)
            trained = module_field(fine, event_ndim=3)
            accumulate_gradients(kernel, trained, field, path, adjoints, steps=steps, chunk=chunk)

        return update

    every, some = sizes.steps, sizes.subset
    variants: list[tuple[str, Callable[[ResidualNetwork], None], bool]] = [
        ("naive: adjoint in one graph, regression in one batch", naive, False),
        ("`lean_adjoint`, regression in one batch", per_step, False),
        ("the same with the network's blocks checkpointed", per_step, True),
        (f"{some} of {every} time steps, drawn at random", accumulated(some, subset), False),
        (f"`accumulate_gradients`, {some} steps at a time", accumulated(some, None), False),
        ("`accumulate_gradients`, a step at a time", accumulated(1, None), False),
        ("a step at a time, blocks checkpointed", accumulated(1, None), True),
        ("adjoint alone, in one graph", adjoint_in_one_graph, False),
        ("adjoint alone, `lean_adjoint`", adjoint_per_step, False),
    ]
    results = []
    for name, update, checkpointed in variants:
        fine = network(checkpointed)
        with PeakMemory() as memory:
            update(fine)
        gradients = [p.grad.flatten() for p in fine.parameters() if p.grad is not None]
        results.append(Measured(name, memory.peak, torch.cat([torch.zeros(0), *gradients])))
    return results


def format_table(results: list[Measured]) -> str:
    """The table as Markdown."""
    first = results[0]
    lines = ["| update | peak (MiB) | of the naive way |", "|---|---|---|"]
    lines += [f"| {r.name} | {r.peak / 2**20:.1f} | {r.peak / first.peak:.0%} |" for r in results]
    return "\n".join(lines)


if __name__ == "__main__":
    print(format_table(measure(Sizes())))
