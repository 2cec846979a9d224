"""Updates through `torch.compile`: a few fused kernels instead of one per operation."""

from typing import Any

import torch

from bench.agents import Agent
from bench.errors import BenchError

__all__ = ["check_compiler", "compile_agent", "has_compiler"]

_VERSIONS = 256


def compile_agent(agent: Agent) -> None:
    """Compile an agent's losses with their gradients, and its gradient clipping, in place.

    What stays outside is one fused optimiser call and a few updates of scalars per replica.

    Raises:
        BenchError: there is no compiler for the agent's device.
    """
    check_compiler(agent.learner.parameters[0].device)
    # Every agent and shape of a job is another version of the same few functions, and torch keeps
    # eight unless it is told otherwise.
    dynamo: Any = torch._dynamo.config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _VERSIONS)
    dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 4 * _VERSIONS)
    target: Any = agent
    target.losses = torch.compile(target.losses, fullgraph=True, dynamic=False)
    guard: Any = agent.learner.guard
    guard.forward = torch.compile(guard.forward, fullgraph=True, dynamic=False)


def check_compiler(device: torch.device) -> None:
    """Refuse a device that `torch.compile` cannot generate code for.

    Raises:
        BenchError: there is no compiler for it.
    """
    if not has_compiler(device):
        raise BenchError(
            "torch.compile needs a C++ compiler (g++ or clang) for the CPU and Triton for a GPU; "
            "install one, or train without compiling"
        )


def has_compiler(device: torch.device) -> bool:
    """Whether `torch.compile` can generate code for a device."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError):
        return False
    return True
