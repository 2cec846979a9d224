"""Log-density of samples of the flow ODE, by the instantaneous change of variables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from flowsde._field import VelocityField, batch_shape, evaluate, is_transformed
from flowsde._ode import OdeMethod, ode_intervals, ode_step
from flowsde._time_grid import TimeGrid, whole_grid

Divergence: TypeAlias = Literal["exact", "hutchinson"]


@dataclass(frozen=True, slots=True)
class OdeDensity:
    """Samples of the flow ODE with their log-density.

    Attributes:
        sample: Data at t=1, (*batch, *event).
        noise: The noise at t=0 that the ODE connects it with, (*batch, *event).
        log_prob: Log-density of `sample` in nats, summed over the event, (*batch).
    """

    sample: Float[Tensor, "*shape"]
    noise: Float[Tensor, "*shape"]
    log_prob: Float[Tensor, "*batch"]


def ode_log_prob(
    velocity: VelocityField,
    sample: Float[Tensor, "*shape"],
    steps: int | None = None,
    method: OdeMethod = "midpoint",
    event_ndim: int = 1,
    *,
    times: TimeGrid | None = None,
    divergence: Divergence = "exact",
    probes: Float[Tensor, "probes *shape"] | None = None,
    generator: torch.Generator | None = None,
) -> OdeDensity:
    """Log-density of given data under the flow, integrating the ODE backwards from t=1.

    `log p_1(x_1) = log N(x_0; 0, I) - int_0^1 div v(x_t, t) dt`. The error is that of the ODE
    method, which asks the field at t=1 too: it must be finite there. "exact" takes one
    vector-Jacobian product per event entry and evaluation, "hutchinson" one per probe (unbiased;
    one probe is what FFJORD uses). The result carries no gradient. Also runs under
    `torch.func.vmap` and inside `torch.compile`.

    Every event entry counts, also padding: a masked network leaves padded entries at their noise,
    and each adds the log-density of N(0, 1) there. The difference of two such fields does not
    have it.

    Source: Chen et al. (arXiv 1806.07366); FFJORD, Grathwohl et al. (arXiv 1810.01367).

    Args:
        velocity: The field; it must be differentiable in x, sample by sample.
        sample: Data, (*batch, *event).
        steps: Number of steps; may be left out beside `times`.
        method: ODE method.
        event_ndim: Number of trailing axes that make up one sample.
        times: Points of the steps from t=0 to t=1, or a scheduler's sigmas; see `time_grid`.
        divergence: "exact" or "hutchinson".
        probes: Random vectors with unit covariance for "hutchinson", (P, *batch, *event); one
            Rademacher vector per sample, kept along the path, if not given.
        generator: Source of that vector where `probes` is not given.

    Returns:
        Sample, the noise it came from, and its log-density.

    Raises:
        ValueError: For bad options or shapes, or a field that cannot be differentiated.
    """
    probes = _checked_probes(divergence, probes, sample, generator)
    intervals = ode_intervals(steps, 1.0, 0.0, None if times is None else whole_grid(times))
    noise, change = _transport(velocity, sample, intervals, method, event_ndim, probes)
    log_prob = _standard_normal(noise, event_ndim) + change
    return OdeDensity(sample=sample.detach(), noise=noise, log_prob=log_prob)


def ode_sample_log_prob(
    velocity: VelocityField,
    noise: Float[Tensor, "*shape"],
    steps: int | None = None,
    method: OdeMethod = "midpoint",
    event_ndim: int = 1,
    *,
    times: TimeGrid | None = None,
    divergence: Divergence = "exact",
    probes: Float[Tensor, "probes *shape"] | None = None,
    generator: torch.Generator | None = None,
) -> OdeDensity:
    """Sample the flow ODE from `noise` and give the log-density of what comes out.

    With `ode_log_prob` of another field at the same samples this measures the endpoint KL of the
    two ODEs, `E_q[log q - log p]`. The path KL is no bound of it: that bounds the KL of samples of
    the SDE, whose law is another unless the velocity is that of a flow from Gaussian noise, as the
    optimum of adjoint matching is.

    Args:
        velocity: The field; it must be differentiable in x, sample by sample.
        noise: x_0 ~ N(0, I), (*batch, *event).
        steps: Number of steps; may be left out beside `times`.
        method: ODE method.
        event_ndim: Number of trailing axes that make up one sample.
        times: Points of the steps from t=0 to t=1, or a scheduler's sigmas; see `time_grid`.
        divergence: See `ode_log_prob`.
        probes: See `ode_log_prob`.
        generator: See `ode_log_prob`.

    Returns:
        Sample, its noise, and its log-density, without gradient.

    Raises:
        ValueError: For bad options or shapes, or a field that cannot be differentiated.
    """
    probes = _checked_probes(divergence, probes, noise, generator)
    intervals = ode_intervals(steps, 0.0, 1.0, None if times is None else whole_grid(times))
    sample, change = _transport(velocity, noise, intervals, method, event_ndim, probes)
    log_prob = _standard_normal(noise.detach(), event_ndim) - change
    return OdeDensity(sample=sample, noise=noise.detach(), log_prob=log_prob)


def _transport(
    velocity: VelocityField,
    x: Tensor,
    intervals: Sequence[tuple[float, float]],
    method: OdeMethod,
    event_ndim: int,
    probes: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Integrate the state and the divergence along it; both detached."""
    step = ode_step(method)
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        raise ValueError(
            "log-densities need autograd: use torch.no_grad() here, not inference_mode"
        )
    batch = batch_shape(x, event_ndim)
    size = math.prod(x.shape[len(batch) :])

    def slope(z: Tensor, t: float) -> Tensor:
        # The state and its log-density travel as one vector, so that any ODE method serves both.
        point = z[..., :size].reshape(x.shape).detach()
        v, pull = _linearized(lambda p: evaluate(velocity, p, t, event_ndim), point)
        trace = _divergence(pull, point, len(batch), probes)
        return torch.cat([v.detach().reshape(*batch, size), trace.unsqueeze(-1)], dim=-1)

    z = torch.cat([x.detach().reshape(*batch, size), x.new_zeros((*batch, 1))], dim=-1)
    for t, h in intervals:
        z = step(slope, z, t, h)
    return z[..., :size].reshape(x.shape), z[..., size]


def _linearized(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Value at x and `cotangent -> (df/dx)^T cotangent`, which may be asked many times."""
    if is_transformed():
        # Slower in eager mode, but the one form that transforms and compiles. The result has two or
        # three parts, by an option that the signature cannot express.
        value, products, *_ = torch.func.vjp(function, x)
        return value, lambda cotangent: products(cotangent)[0].detach()
    with torch.enable_grad():
        x = x.requires_grad_()
        value = function(x)
    if not value.requires_grad:
        raise ValueError(
            "the velocity field has no gradient in x (does it run under torch.no_grad, or not "
            "depend on x?); its divergence needs one"
        )

    def pull(cotangent: Tensor) -> Tensor:
        (row,) = torch.autograd.grad(value, x, cotangent, retain_graph=True, materialize_grads=True)
        return row

    return value, pull


def _divergence(
    pull: Callable[[Tensor], Tensor], x: Tensor, batch_ndim: int, probes: Tensor | None
) -> Tensor:
    """Trace of dv/dx per sample, (*batch): exact, or the mean over probes of e^T (dv/dx) e."""
    event = x.shape[batch_ndim:]
    size = math.prod(event)
    count = size if probes is None else len(probes)
    total = x.new_zeros(x.shape[:batch_ndim])
    for i in range(count):
        if probes is None:
            probe = x.new_zeros(size)
            probe[i] = 1.0
            probe = probe.reshape(event).expand(x.shape)
        else:
            probe = probes[i]
        # Samples do not see each other, so one product serves the whole batch.
        total = total + (pull(probe) * probe).reshape(*total.shape, size).sum(-1)
    return total if probes is None else total / count


def _checked_probes(
    divergence: str, probes: Tensor | None, x: Tensor, generator: torch.Generator | None
) -> Tensor | None:
    if divergence not in ("exact", "hutchinson"):
        raise ValueError(f"divergence must be 'exact' or 'hutchinson', got {divergence!r}")
    if divergence == "exact":
        if probes is not None or generator is not None:
            raise ValueError("the exact divergence draws nothing: leave out probes and generator")
        return None
    if probes is None:
        signs = torch.randint(0, 2, (1, *x.shape), generator=generator, device=x.device)
        return (2 * signs - 1).to(x.dtype)
    if len(probes) == 0 or probes.shape[1:] != x.shape:
        raise ValueError(
            f"probes have shape {tuple(probes.shape)}; expected (P, *shape) with P >= 1 and shape "
            f"{tuple(x.shape)}"
        )
    return probes


def _standard_normal(noise: Tensor, event_ndim: int) -> Tensor:
    density = -0.5 * noise.square() - 0.5 * math.log(2.0 * math.pi)
    axes = tuple(range(-event_ndim, 0))
    return density.sum(axes) if axes else density
