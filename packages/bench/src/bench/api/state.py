"""What a function call must leave as it was in the caller's process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["process_state_kept"]


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Give back torch's number of threads, its float32 precision and `MUJOCO_GL`.

    Training and simulators change them, also where they end in an exception.
    """
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    drawing = os.environ.get("MUJOCO_GL")
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
        if drawing is None:
            os.environ.pop("MUJOCO_GL", None)
        else:
            os.environ["MUJOCO_GL"] = drawing
