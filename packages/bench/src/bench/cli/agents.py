"""`bench agents`: the methods, their papers and their settings."""

from dataclasses import MISSING, dataclass, fields
from typing import Annotated

import tyro

__all__ = ["Agents"]


@dataclass(frozen=True)
class Agents:
    """List the agents, or one agent's settings with their defaults.

    Attributes:
        agent: show the settings of this agent.
    """

    agent: Annotated[str | None, tyro.conf.Positional] = None

    def run(self) -> int:
        """Print the list or the settings."""
        from rich.console import Console
        from rich.table import Table

        from bench.agents import AGENTS
        from bench.suites import unknown

        table = Table()
        if self.agent is None:
            for column in ("agent", "method", "paper"):
                table.add_column(column)
            for name, entry in AGENTS.items():
                table.add_row(name, entry.summary, entry.paper)
        else:
            if self.agent not in AGENTS:
                raise ValueError(unknown("agent", self.agent, AGENTS))
            for column in ("setting", "default"):
                table.add_column(column)
            for field in fields(AGENTS[self.agent].config):
                default = "required" if field.default is MISSING else str(field.default)
                table.add_row(field.name, default)
        Console().print(table)
        return 0
