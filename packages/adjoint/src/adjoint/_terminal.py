"""Gradient of the reward at the end of a path."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from adjoint._pull_back import pull_back


def terminal_gradient(
    value: Callable[[Tensor], Tensor],
    x: Float[Tensor, "*shape"],
    clip: tuple[float, float] | None = None,
) -> Float[Tensor, "*shape"]:
    """Gradient of `sum value(clip(x))` in x; the terminal adjoint is `a(1) = -` this.

    With `clip`, components of x beyond the bounds get gradient zero: the reward cannot push a
    sample further out of the box in which it is used (actions are clipped before they are
    executed), but nor does it pull it back. QAM and TRQAM clip actions to (-1, 1).

    Args:
        value: Reward, (*batch, *event) -> (*batch) or anything whose sum is the total reward, with
            no term that mixes samples.
        x: End of a path, (*batch, *event).
        clip: Bounds (low, high) of the box, or None.

    Returns:
        (*batch, *event), detached.

    Raises:
        ValueError: If `clip` is no interval or the value cannot be differentiated in x.
    """
    if clip is not None and not (len(clip) == 2 and clip[0] < clip[1]):
        raise ValueError(f"clip must be (low, high) with low < high, got {clip}")
    gradient = pull_back(value, x if clip is None else x.clamp(*clip), None, "the value")
    # The mask is written out: what clamp's own derivative is on the bounds depends on the version.
    return gradient if clip is None else gradient * ((x >= clip[0]) & (x <= clip[1]))
