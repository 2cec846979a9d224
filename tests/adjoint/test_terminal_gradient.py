"""The terminal condition of the adjoint."""

import pytest
import torch

from adjoint import terminal_gradient


def value(x):
    return (x**3).sum(-1)


def test_it_is_the_gradient_inside_and_zero_outside_the_clip():
    x = torch.tensor([[-1.5, -0.5, 0.25], [1.0, 2.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(terminal_gradient(value, x), 3.0 * x.square())
    clipped = terminal_gradient(value, x, clip=(-1.0, 1.0))
    expected = torch.where(x.abs() <= 1.0, 3.0 * x.square(), 0.0)
    torch.testing.assert_close(clipped, expected)


def test_the_value_sees_the_clipped_sample():
    seen = []

    def record(x):
        seen.append(x.detach())
        return value(x)

    terminal_gradient(record, torch.tensor([[-3.0, 0.5]]), clip=(-1.0, 2.0))
    torch.testing.assert_close(seen[0], torch.tensor([[-1.0, 0.5]]))


def test_it_is_detached_and_works_under_no_grad():
    x = torch.randn(3, 2, requires_grad=True)
    with torch.no_grad():
        gradient = terminal_gradient(value, x)
    assert not gradient.requires_grad
    assert x.grad is None


def test_bad_input_is_refused():
    x = torch.randn(3, 2)
    with pytest.raises(ValueError, match="low < high"):
        terminal_gradient(value, x, clip=(1.0, -1.0))
    with pytest.raises(ValueError, match="cannot be differentiated in x"):
        terminal_gradient(lambda x: value(x).detach(), x)
