"""The precision of matrix products."""

import contextlib
from collections.abc import Iterator

import torch

from qlearn import has_bfloat16_products

__all__ = ["autocast", "emulation_warning", "float32_products"]


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Products of bfloat16 numbers for the precision `bfloat16`, in this thread.

    The networks of `qlearn` then compute the same values on every processor, see
    :func:`emulation_warning`.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def emulation_warning(precision: str, device: torch.device) -> str | None:
    """What a user should know before training in a precision that the processor does not have."""
    if precision != "bfloat16" or device.type != "cpu" or has_bfloat16_products():
        return None
    return (
        "this processor has no bfloat16 products (they take AVX-512 or AMX): they are emulated "
        "with the same values, which is slower than --precision float32"
    )


@contextlib.contextmanager
def float32_products(precision: str, device: torch.device) -> Iterator[None]:
    """Products of float32 numbers by TF32 for the precision `tf32`, in the whole process.

    Raises:
        ValueError: `tf32` on a device that is no GPU.
    """
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"tf32 needs a GPU; on {device.type} use float32 or bfloat16")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
