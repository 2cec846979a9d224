"""What a process that trains on CPU cores sets once, before it starts."""

import ctypes
import sys

__all__ = ["keep_freed_memory"]

# Of mallopt(3). Blocks below the first limit come from the heap (32 MiB is the largest that glibc
# takes), and the heap is given back only beyond the second.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK, _LARGEST_FREE_HEAP = 1 << 25, 1 << 30


def keep_freed_memory() -> bool:
    """Let glibc keep the memory of freed tensors for the next ones.

    By default it gives blocks of a megabyte, the activations of a small network, back to the system
    and takes them anew at every operation; the system clears every page of them each time. That
    shows as thousands of page faults an update.

    Returns:
        Whether it is set; False on a system without glibc, where nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = {
        _M_MMAP_THRESHOLD: _LARGEST_HEAP_BLOCK,
        _M_TRIM_THRESHOLD: _LARGEST_FREE_HEAP,
    }
    return all(mallopt(name, value) == 1 for name, value in settings.items())
