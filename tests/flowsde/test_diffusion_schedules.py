"""The common schedules of diffusion models: what a small error of the network does to the field."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowsde import (
    CosineInterpolant,
    DiffusionPrediction,
    LinearInterpolant,
    MemorylessEuler,
    ode_sample,
    variance_preserving_field,
    velocity_field,
)

STD = 0.5
COSINE = CosineInterpolant()


def schedules(count: int) -> dict[str, Tensor]:
    """`alphas_cumprod` of the four that `diffusers` has, for `count` training timesteps."""
    line = torch.linspace(0.0, 1.0, count, dtype=torch.float64)
    grid = torch.linspace(0.0, 1.0, count + 1, dtype=torch.float64)
    bar = torch.cos((grid + 0.008) / 1.008 * 0.5 * math.pi) ** 2
    betas = {
        "linear": 1e-4 + (0.02 - 1e-4) * line,
        "scaled_linear": (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * line) ** 2,
        "squaredcos_cap_v2": (1.0 - bar[1:] / bar[:-1]).clamp(max=0.999),
        "sigmoid": 1e-4 + (0.02 - 1e-4) * torch.sigmoid(12.0 * line - 6.0),
    }
    return {name: torch.cumprod(1.0 - beta, 0) for name, beta in betas.items()}


def model_of(table: Tensor, kind: str, error: float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The exact network of data N(0, STD^2) plus a constant error, in terms of its timesteps."""
    angle = torch.asin(torch.sqrt(table))

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        low = timestep.floor().long().clamp(0, len(table) - 2)
        turned = torch.lerp(angle[low], angle[low + 1], timestep.double() - low)[..., None]
        alpha, beta = torch.sin(turned), torch.cos(turned)
        weight = beta if kind == "epsilon" else alpha * STD**2
        return weight / (alpha**2 * STD**2 + beta**2) * x + error

    return model


def euler_kl(field: Callable[[Tensor, Tensor], Tensor], other: object, steps: int) -> float:
    """Path KL of two fields that differ by a function of time alone: no path is needed."""
    kernel = MemorylessEuler(steps, interpolant=COSINE)
    x = torch.zeros(steps, 1, dtype=torch.float64)
    t = torch.tensor(kernel.times, dtype=torch.float64)
    change = (field(x, t) - other(x, t))[:, 0]  # type: ignore[operator]
    ratio = torch.tensor(kernel.gains, dtype=torch.float64) / torch.tensor(kernel.stds)
    return float(0.5 * (ratio * change).square().sum())


@pytest.mark.parametrize("name", schedules(10))
@pytest.mark.parametrize("count", [100, 1000])
def test_models_a_hundredth_apart_are_near_in_path_kl(name: str, count: int) -> None:
    # Betas of a hundred timesteps are those of a thousand only for the cosine schedule.
    table = schedules(count if name == "squaredcos_cap_v2" else 1000)[name]
    one, other = (
        variance_preserving_field(model_of(table, "epsilon", error), table) for error in (0.0, 0.01)
    )
    for steps in (20, 100):
        assert 1e-5 < euler_kl(one, other, steps) < 2e-3


@pytest.mark.parametrize("name", schedules(10))
def test_an_imperfect_noise_model_samples_the_data(name: str) -> None:
    table = schedules(1000)[name]
    field = variance_preserving_field(model_of(table, "epsilon", 0.01), table)
    noise = torch.linspace(-2.0, 2.0, 41, dtype=torch.float64)[:, None]
    sample = ode_sample(field, noise, 100, "midpoint")
    assert (sample - STD * noise).abs().max() < 0.06


def test_the_whole_table_is_warned_of_where_it_ends_in_noise() -> None:
    tables = schedules(1000)
    whole: dict[str, float] = {"first_time": 0.0}
    for name in ("linear", "scaled_linear", "sigmoid"):
        variance_preserving_field(model_of(tables[name], "epsilon"), tables[name], **whole)
    table = tables["squaredcos_cap_v2"]
    for kind in ("v_prediction", "sample"):
        variance_preserving_field(model_of(table, kind), table, kind, **whole)
    fields = []
    with pytest.warns(UserWarning, match="asked at t=.*keep first_time at its default"):
        fields.append(variance_preserving_field(model_of(table, "epsilon"), table, **whole))
    with pytest.warns(UserWarning, match="first_time"):
        fields.append(variance_preserving_field(model_of(table, "epsilon", 0.01), table, **whole))
    # What the default keeps away: the figures of docs/flowsde.md.
    assert 50.0 < euler_kl(fields[0], fields[1], 20) < 70.0
    assert 2.0 < euler_kl(fields[0], fields[1], 100) < 3.0


@pytest.mark.parametrize("interpolant", [LinearInterpolant(), COSINE])
def test_limits_of_velocity_field_are_warned_of_too(interpolant) -> None:
    for kind, name, time in (("noise", "first_time", 0.0), ("score", "first_time", 1e-5)):
        with pytest.warns(UserWarning, match=f"a {kind} model asked.*keep {name} at its default"):
            velocity_field(lambda x, t: x, kind, interpolant, **{name: time})
    with pytest.warns(UserWarning, match="a data model asked at t=1 .*keep last_time"):
        velocity_field(lambda x, t: x, "data", interpolant, last_time=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("noise", "score", "data", "velocity"):
            velocity_field(lambda x, t: x, kind, interpolant)
        velocity_field(lambda x, t: x, "velocity", interpolant, first_time=0.0, last_time=1.0)


@pytest.mark.parametrize(
    ("prediction", "limits", "asked"),
    [("epsilon", {"first_time": 0.3}, 0.3), ("sample", {"last_time": 0.6}, 0.6)],
)
def test_the_model_is_not_asked_beyond_the_limits(
    prediction: DiffusionPrediction, limits: dict[str, float], asked: float
) -> None:
    table = schedules(1000)["linear"]
    seen: list[Tensor] = []

    def model(x: Tensor, timestep: Tensor) -> Tensor:
        seen.append(timestep)
        return x

    field = variance_preserving_field(model, table, prediction, **limits)
    t = torch.tensor([0.0 if prediction == "epsilon" else 1.0, asked], dtype=torch.float64)
    field(torch.zeros(2, 1, dtype=torch.float64), t)
    assert seen[0][0] == seen[0][1]
    assert 1.0 < seen[0][0] < 998.0


def test_a_table_outside_the_limits_is_refused() -> None:
    table = schedules(1000)["linear"]
    with pytest.raises(ValueError, match=r"none is between first_time=0\.9"):
        variance_preserving_field(lambda x, t: x, table[-10:], "epsilon", first_time=0.9)
    with pytest.raises(ValueError, match="0 <= first_time < last_time <= 1"):
        variance_preserving_field(lambda x, t: x, table, "epsilon", first_time=0.9, last_time=0.1)
