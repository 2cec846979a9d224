"""What settings say of how lambda moves; the tables read it in run directories."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DualSettings"]


@dataclass(frozen=True, slots=True)
class DualSettings:
    """How a trust region finds its lambda.

    Attributes:
        dual: `descend`, `relative` or `solve`.
        dual_rate: step size of the descent, or of the correction of a solved lambda; None where an
            agent has none.
    """

    dual: str = "descend"
    dual_rate: float | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "DualSettings":
        """Those among an agent's settings in a `run.json`."""
        return cls(settings.get("dual", "descend"), settings.get("dual_rate"))

    @property
    def holds_lambda(self) -> bool:
        """Whether lambda stays where it starts, so that nothing reads the KL budget."""
        return self.dual != "solve" and self.dual_rate == 0.0
