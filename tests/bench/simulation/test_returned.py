"""What an environment returns must be numbers that float32 can train on."""

import numpy as np
import pytest

from bench.simulation import ArraySpec, EnvironmentFaultError
from bench.simulation._returned import LARGEST_NUMBER, checked_observation, checked_reward

SPACE = ArraySpec((2,), np.dtype(np.float32))


@pytest.mark.parametrize("value", [1e300, 3e38, 1e37, -1.1e15, np.nan, -np.inf])
def test_numbers_that_nobody_may_train_on_are_the_environments_fault(value: float) -> None:
    wrong = "not finite in float32|larger than 1e\\+15"
    with pytest.raises(EnvironmentFaultError, match=f"a reward that is ({wrong})"):
        checked_reward(value)
    with pytest.raises(EnvironmentFaultError, match=rf"an observation .* ({wrong}).*entry \[1\]"):
        checked_observation(np.array([0.0, value]), SPACE)


def test_the_largest_numbers_are_taken_as_they_are() -> None:
    assert checked_reward(-LARGEST_NUMBER) == -LARGEST_NUMBER
    found = checked_observation([1.0, 9e14], SPACE)
    np.testing.assert_array_equal(found, np.array([1.0, 9e14], np.float32))
