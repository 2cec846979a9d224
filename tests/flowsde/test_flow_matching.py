import pytest
import torch

from flowsde import CosineInterpolant, LinearInterpolant, flow_matching_loss


def test_is_the_mean_over_event_axes(generator) -> None:
    x1, x0 = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64, generator=generator)
    t = torch.rand(5, dtype=torch.float64, generator=generator)
    loss = flow_matching_loss(lambda x, t: 0.5 * x, x1, x0, t, event_ndim=3)
    for i in range(5):
        x_t = t[i] * x1[i] + (1.0 - t[i]) * x0[i]
        expected = ((0.5 * x_t - (x1[i] - x0[i])) ** 2).sum() / 12.0
        assert float(loss[i]) == pytest.approx(float(expected))


@pytest.mark.parametrize("path", [LinearInterpolant(), CosineInterpolant()])
def test_the_exact_velocity_is_a_minimum(path, gaussian, generator) -> None:
    data = gaussian(0.7, 0.4, path)
    x0, unit = torch.randn(2, 20_000, 1, dtype=torch.float64, generator=generator)
    t = torch.rand(20_000, dtype=torch.float64, generator=generator)

    def loss(shift: float, tilt: float) -> float:
        return float(
            flow_matching_loss(
                lambda x, t: (1.0 + tilt) * data.velocity(x, t) + shift,
                0.7 + 0.4 * unit,
                x0,
                t,
                path,
            ).mean()
        )

    best = loss(0.0, 0.0)
    assert best > 0.1  # the conditional variance remains: the loss does not go to zero
    for shift, tilt in ((0.1, 0.0), (-0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        assert loss(shift, tilt) > best + 5e-3


def test_zero_for_the_conditional_velocity_and_scalar_events() -> None:
    x1, x0, t = torch.tensor([1.0, 2.0]), torch.zeros(2), torch.tensor([0.25, 0.5])
    loss = flow_matching_loss(lambda x, t: x / t, x1, x0, t, event_ndim=0)
    assert torch.equal(loss, torch.zeros(2))


def test_bad_arguments_are_refused() -> None:
    x, t = torch.zeros(4, 2), torch.zeros(4)
    with pytest.raises(ValueError, match=r"noise x0 has shape \(3, 2\) and data x1 \(4, 2\)"):
        flow_matching_loss(lambda x, t: x, x, x[:3], t)
    with pytest.raises(ValueError, match=r"t has shape \(4, 1\); expected the batch shape \(4,\)"):
        flow_matching_loss(lambda x, t: x, x, x, t[:, None])
    with pytest.raises(ValueError, match="must return the shape of its input"):
        flow_matching_loss(lambda x, t: x[:, :1], x, x, t)
