"""CPU time of the replicated networks against torch's own layers and the bare matrix products.

    uv run python packages/qlearn/benchmarks/networks.py

One thread. Candidates take turns and the fastest turn of each counts, in CPU time of the thread,
so that other work on the machine disturbs little. Forward and backward, milliseconds per replica.
"""

import argparse
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from qlearn import MLP, CriticEnsemble, RandomStreams

IN_DIM, OUT_DIM = 81, 25
DEPTH = 4
Call = Callable[[], object]


def fastest(calls: dict[str, Call], turns: int) -> dict[str, float]:
    """Milliseconds of each call."""
    best = dict.fromkeys(calls, float("inf"))
    for name, call in [*calls.items()] * (turns + 1):
        begin = time.thread_time()
        call()
        best[name] = min(best[name], 1e3 * (time.thread_time() - begin))
    return best


def products(stack: int, rows: int, widths: list[int]) -> Call:
    """The matrix products of one forward and backward pass, without the input's gradient."""
    layers = [
        (torch.randn(stack, rows, i), torch.randn(stack, i, o), torch.randn(stack, rows, o))
        for i, o in itertools.pairwise(widths)
    ]

    def run() -> None:
        for position, (x, kernel, gradient) in enumerate(layers):
            torch.bmm(x, kernel)
            torch.bmm(x.mT, gradient)
            if position > 0:
                torch.bmm(gradient, kernel.mT)

    return run


def forward_backward(network: nn.Module, x: Tensor) -> Call:
    """One training pass without the optimiser."""

    def run() -> None:
        network.zero_grad(set_to_none=True)
        network(x).square().mean().backward()

    return run


def sequential(width: int, layer_norm: bool) -> nn.Sequential:
    """The same network from torch's layers, for one replica."""
    layers: list[nn.Module] = []
    for size in (IN_DIM, *[width] * (DEPTH - 1)):
        layers += [nn.Linear(size, width), nn.GELU(approximate="tanh")]
        layers += [nn.LayerNorm(width, eps=1e-6)] * layer_norm
    return nn.Sequential(*layers, nn.Linear(width, OUT_DIM))


def policies(width: int, layer_norm: bool, rows: int, turns: int) -> dict[str, float]:
    """MLP, one and two replicas, against torch's layers and the products."""
    widths = [IN_DIM, *[width] * DEPTH, OUT_DIM]
    calls = {
        "products": products(1, rows, widths),
        "torch layers": forward_backward(sequential(width, layer_norm), torch.randn(rows, IN_DIM)),
    }
    for replicas in (1, 2):
        streams = RandomStreams(range(replicas))
        network = MLP(
            replicas, IN_DIM, [width] * DEPTH, OUT_DIM, layer_norm=layer_norm, streams=streams
        )
        x = torch.randn(replicas, rows, IN_DIM)
        calls[f"MLP R={replicas}"] = forward_backward(network, x)
        path = torch.randn(10, replicas, rows // 10, IN_DIM)
        calls[f"MLP R={replicas}, 10 path times"] = forward_backward(network, path)
    times = fastest(calls, turns)
    return {name: ms / (2 if "R=2" in name else 1) for name, ms in times.items()}


def critics(width: int, layer_norm: bool, rows: int, turns: int) -> dict[str, float]:
    """Ten critics on one input."""
    streams = RandomStreams([0])
    critic = CriticEnsemble(1, 10, IN_DIM, [width] * DEPTH, layer_norm=layer_norm, streams=streams)
    calls = {
        "products": products(10, rows, [IN_DIM, *[width] * DEPTH, 1]),
        "CriticEnsemble": forward_backward(critic, torch.randn(1, rows, IN_DIM)),
    }
    return fastest(calls, turns)


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--turns", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for width in arguments.widths:
        for layer_norm in (False, True):
            for kind, measure, rows in (("policy", policies, 2560), ("critics", critics, 256)):
                times = measure(width, layer_norm, rows, arguments.turns)
                line = ", ".join(f"{name} {ms:.2f}" for name, ms in times.items())
                print(f"{kind}, width {width}, LayerNorm {layer_norm}, {rows} rows: {line}")


if __name__ == "__main__":
    main()
