"""Shapes that torch would broadcast to a result of other samples, and lambdas that are none."""

import math
import warnings

import pytest
import torch

from adjoint import matching_loss
from flowsde import (
    LinearInterpolant,
    MemorylessEuler,
    checked_positive,
    from_velocity,
    sample_path,
    to_velocity,
)
from trustregion import dual_function, tilted_kl, tilted_kl_derivative

ROWS = torch.zeros(4, 3)


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3), torch.zeros(3), torch.zeros(4, 1)])
def test_noise_velocities_and_data_have_one_shape(wrong) -> None:
    path, t = LinearInterpolant(), torch.zeros(4)
    calls = [
        lambda: path.interpolate(wrong, ROWS, t),
        lambda: path.velocity(wrong, ROWS, t),
        lambda: path.interpolate(ROWS, wrong, t),
        lambda: from_velocity("data", wrong, ROWS, t),
        lambda: from_velocity("velocity", wrong, ROWS, t),
        lambda: from_velocity("noise", ROWS, wrong, t),
        lambda: to_velocity("noise", wrong, ROWS, t),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="shape"):
            call()


@pytest.mark.parametrize("times", [torch.zeros(3), torch.zeros(4, 2), torch.zeros(4, 3, 1)])
def test_times_belong_to_samples(times) -> None:
    path = LinearInterpolant()
    for x, t in ((ROWS, times), (ROWS[:1], torch.zeros(4))):
        with pytest.raises(ValueError, match="one time per sample"):
            path.interpolate(x, x, t)
        with pytest.raises(ValueError, match="one time per sample"):
            from_velocity("data", x, x, t)
    assert path.interpolate(ROWS, ROWS, torch.zeros(1)).shape == (4, 3)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_lambda_in_a_tensor_is_checked_as_a_number_is(value: float) -> None:
    kernel, v = MemorylessEuler(3), torch.zeros(3, 2, 1)
    q = torch.randn(2, 50, generator=torch.Generator().manual_seed(0))
    for lam in (value, torch.tensor([1.0, value])):
        for call in (
            lambda lam=lam: matching_loss(kernel, v, v, torch.zeros(4, 2, 1), lam),
            lambda lam=lam: tilted_kl(q, lam),
            lambda lam=lam: tilted_kl_derivative(q, lam),
            lambda lam=lam: dual_function(q, lam, 0.5),
        ):
            with pytest.raises(ValueError, match="lam must be positive, got"):
                call()
    with pytest.raises(ValueError, match="budget must be positive"):
        dual_function(q, 1.0, torch.tensor([0.5, value]))
    with pytest.raises(ValueError, match=r"expected one that broadcasts to \(2,\)"):
        tilted_kl(q, torch.ones(3))


def test_where_entries_are_not_looked_at_they_become_nan() -> None:
    def loss(lam: torch.Tensor) -> torch.Tensor:
        kernel, v = MemorylessEuler(3), torch.ones(3, 1, 1)
        return matching_loss(kernel, v, v, torch.ones(4, 1, 1), lam[None])[0]

    lam = torch.tensor([1.0, 0.0, -2.0, 4.0])
    found = torch.func.vmap(loss)(lam)
    assert found.isnan().tolist() == [False, True, True, False]
    compiled = torch.compile(lambda lam: checked_positive("lam", lam), backend="eager")
    assert compiled(lam).isnan().tolist() == [False, True, True, False]
    # What is not known is no mistake of the caller's: it stays NaN.
    assert math.isnan(float(checked_positive("lam", torch.tensor(math.nan))))


def test_images_given_to_a_kernel_of_vectors_are_warned_of() -> None:
    images = torch.zeros(2, 3, 4, 4)
    with pytest.warns(UserWarning, match="give it event_ndim=3 for images"):
        sample_path(MemorylessEuler(2), lambda x, t: x, images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample_path(MemorylessEuler(2, event_ndim=3), lambda x, t: x, images)
        sample_path(MemorylessEuler(2), lambda x, t: x, images[0])
