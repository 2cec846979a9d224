"""How fields that several requests share look on the command line."""

from typing import Annotated

import tyro

__all__ = ["AgentNames"]

AgentNames = Annotated[tuple[str, ...], tyro.conf.arg(metavar="AGENT")]
