"""How updates are executed: the precision of their products, and in which of four modes."""

from typing import Literal

__all__ = [
    "Mode",
    "Precision",
    "PrecisionChoice",
    "execution_mode",
    "is_captured",
    "is_compiled",
    "resolved_precision",
]

Precision = Literal["float32", "tf32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "tf32", "bfloat16"]
Mode = Literal["eager", "compiled", "captured", "compiled+captured"]
"""Operation by operation; through `torch.compile`; the operations of either as one CUDA graph."""


def resolved_precision(choice: PrecisionChoice, *, gpu: bool) -> Precision:
    """The precision of matrix products: `auto` is tf32 on a GPU and float32 elsewhere.

    Raises:
        ValueError: tf32 on a CPU.
    """
    if choice == "auto":
        return "tf32" if gpu else "float32"
    if choice == "tf32" and not gpu:
        raise ValueError("--precision tf32 exists on GPUs only; use float32 or bfloat16 on the CPU")
    return choice


def execution_mode(*, compiled: bool, captured: bool) -> Mode:
    """The word for a combination of `--compile` and `--capture`."""
    if captured:
        return "compiled+captured" if compiled else "captured"
    return "compiled" if compiled else "eager"


def is_compiled(mode: Mode) -> bool:
    """Whether updates run through `torch.compile`."""
    return mode in ("compiled", "compiled+captured")


def is_captured(mode: Mode) -> bool:
    """Whether updates are launched as one CUDA graph."""
    return mode in ("captured", "compiled+captured")
