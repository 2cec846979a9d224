"""Peak memory of an adjoint-matching update of a transformer of 100 million parameters.

Every variant runs in a process of its own; what is printed is the most memory that the process held
beyond what it held before the update: weights and gradients of the models and the path are there in
every variant and are not counted. The first is the loop as it is written down from the paper, the
others come from `adjoint`.

    uv run python examples/transformer_memory.py    # some minutes on one core

prints the table that docs/large-models.md shows.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adjoint import accumulate_gradients, lean_adjoint, matching_loss
from flowsde import MemorylessEuler, module_field, sample_path, velocities_along

SHAPE = (1, 64, 64)  # batch, tokens, channels
VARIANTS = {
    "naive": "one graph for the adjoint, one for the regression",
    "lean": "`lean_adjoint`, regression in one graph",
    "accumulated": "`accumulate_gradients`, a step at a time",
    "checkpointed": "the same, blocks checkpointed",
    "autocast": "the same in bfloat16 by autocast (one step)",
    "bfloat16": "the same with weights in bfloat16 (one step)",
}
# Where bfloat16 is emulated a step takes minutes; its memory is that of any other step.
SINGLE = ("autocast", "bfloat16")


class Transformer(nn.Module):
    """A transformer over tokens; the time is added to them."""

    def __init__(self, width: int, layers: int, checkpointed: bool) -> None:
        super().__init__()
        self.first = nn.Linear(SHAPE[2] + 1, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, 12, 4 * width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.last = nn.Linear(width, SHAPE[2])
        self.checkpointed = checkpointed

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Velocity at tokens x (B, 64, 64), times t (B,)."""
        own = self.first.weight.dtype
        time = t[:, None, None].expand(*x.shape[:2], 1)
        y = self.first(torch.cat([x, time], -1).to(own))
        for block in self.blocks:
            y = checkpoint(block, y, use_reentrant=False) if self.checkpointed else block(y)
        v: Tensor = self.last(y).to(x.dtype)
        return v


def parameters(width: int, layers: int) -> int:
    """Number of parameters of the fine-tuned model."""
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(width, layers, False).parameters())


def update(variant: str, width: int, layers: int, steps: int) -> tuple[float, float, float]:
    """MiB beyond the weights and the path, seconds, and the norm of the gradient."""
    torch.manual_seed(0)
    low = variant == "bfloat16"
    dtype = torch.bfloat16 if low else torch.float32
    checkpointed = variant in ("checkpointed", "autocast", "bfloat16")
    base = Transformer(width, layers, checkpointed).to(dtype).requires_grad_(False)
    fine = Transformer(width, layers, checkpointed).to(dtype)
    fine.load_state_dict(base.state_dict())
    old, new = module_field(base, event_ndim=2), module_field(fine, event_ndim=2)
    kernel = MemorylessEuler(1 if variant in SINGLE else steps, event_ndim=2)
    with torch.no_grad():
        path = sample_path(kernel, old, torch.randn(SHAPE))
    for parameter in fine.parameters():
        parameter.grad = torch.ones_like(parameter).zero_()  # touched, so that it is there
    before, began = _peak(), time.monotonic()
    with torch.autocast("cpu", torch.bfloat16, enabled=variant == "autocast"):
        terminal = path.sample - 1.0
        if variant == "naive":
            adjoints = _unrolled(kernel, old, path.inputs, terminal)
        else:
            adjoints = lean_adjoint(kernel, old, path, terminal)
        if variant in ("naive", "lean"):
            with torch.no_grad():
                at_base = velocities_along(kernel, old, path)
            at_fine = velocities_along(kernel, new, path)
            torch.autograd.backward(matching_loss(kernel, at_fine, at_base, adjoints).mean())
        else:
            accumulate_gradients(kernel, new, old, path, adjoints)
    seconds = time.monotonic() - began
    squares = [p.grad.float().square().sum() for p in fine.parameters() if p.grad is not None]
    return _peak() - before, seconds, float(sum(squares, torch.zeros(())).sqrt())


def _unrolled(kernel: MemorylessEuler, field: object, inputs: Tensor, terminal: Tensor) -> Tensor:
    """The adjoint by backward passes through one graph of all steps."""
    assert callable(field)
    states = [state.detach().requires_grad_() for state in inputs]
    means = [
        kernel.mean(x, field(x, x.new_full(x.shape[:1], kernel.adjoint_times[k])), k)
        for k, x in enumerate(states)
    ]
    adjoints = [terminal]
    for state, mean in zip(reversed(states), reversed(means), strict=True):
        adjoints.append(torch.autograd.grad(mean, state, adjoints[-1], retain_graph=True)[0])
    return torch.stack(adjoints[::-1])


def _peak() -> float:
    """Largest resident set of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def measure(width: int, layers: int, steps: int) -> list[tuple[str, float, float, float]]:
    """Every variant in a fresh process."""
    rows = []
    for variant in VARIANTS:
        sizes = ["--width", str(width), "--layers", str(layers), "--steps", str(steps)]
        command = [sys.executable, str(Path(__file__).resolve()), "--variant", variant, *sizes]
        # Freed tensors go back to the system at once; by default the C library keeps some.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        memory, seconds, norm = (float(number) for number in done.stdout.split())
        rows.append((variant, memory, seconds, norm))
        print(variant, done.stdout.strip(), file=sys.stderr, flush=True)
    return rows


def format_table(rows: list[tuple[str, float, float, float]]) -> str:
    """The table as Markdown."""
    lines = ["| update | peak (MiB) | of the naive loop | seconds |", "|---|---|---|---|"]
    for variant, memory, seconds, _ in rows:
        share = memory / rows[0][1]
        lines.append(f"| {VARIANTS[variant]} | {memory:.0f} | {share:.0%} | {seconds:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Peak memory of an update")
    parser.add_argument("--variant", choices=list(VARIANTS))
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.variant is not None:
        print(*update(given.variant, given.width, given.layers, given.steps))
    else:
        count = parameters(given.width, given.layers)
        table = format_table(measure(given.width, given.layers, given.steps))
        print(f"{count / 1e6:.0f}M parameters, {given.steps} steps, {SHAPE} tokens\n\n{table}")
