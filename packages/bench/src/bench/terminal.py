"""Where commands print their tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["standard_output"]

_WIDTH = 160


def standard_output(*, markup: bool = True, highlight: bool = True) -> Console:
    """Standard output; wide where it is no terminal, so that tables and logs keep their lines.

    Args:
        markup: whether brackets in texts are markup.
        highlight: whether numbers and paths are coloured.
    """
    from rich.console import Console

    # A pipe has no width: a table cut to 80 columns would lose names.
    width = None if sys.stdout.isatty() else _WIDTH
    return Console(width=width, markup=markup, highlight=highlight)
