"""What an environment cannot do is known before anything is trained for it."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.simulation import EnvironmentFaultError, EnvironmentLimits, rehearse
from bench.simulation._marker import NO_MARKER
from bench.simulation._rehearsal import RehearsalHost

LIMITS = EnvironmentLimits(seconds=3.0, memory=1 << 28)


def contrived(trouble: str) -> str:
    return f"contrived_environments:Counting-{trouble}-v0"


def test_a_sound_environment_is_described() -> None:
    found = rehearse(contrived("None"), LIMITS)
    assert (found.tells_success, found.reproducible, found.unsavable) == (True, True, None)
    assert found.spaces.observation_shape == (2,)
    np.testing.assert_array_equal(found.spaces.action_high, [1.0, 1.0])
    began = time.monotonic()
    assert rehearse(contrived("None"), LIMITS) is found  # a sweep asks at each of its points
    assert time.monotonic() - began < 0.5


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("Hang", r"did not return from a call within 3 s \(--env-timeout"),
        ("Die", "exit code 3"),
    ],
)
def test_an_environment_that_ends_its_process_is_named(trouble: str, reason: str) -> None:
    with pytest.raises(EnvironmentFaultError, match=f"'{contrived(trouble)}'.*{reason}"):
        rehearse(contrived(trouble), LIMITS)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("Reset", "cannot be made and reset: RuntimeError: no ground to stand on"),
        ("Raise", "ArithmeticError: the simulation diverged"),
        ("Wide", r"an observation of shape \(3,\), but its observation_space has \(2,\)"),
        ("NanReward", "a reward that is not finite in float32: nan"),
        ("Odd", r"info\['success'\] is 'yes'"),
    ],
)
def test_a_fault_is_described(trouble: str, reason: str) -> None:
    with pytest.raises(EnvironmentFaultError, match=reason):
        RehearsalHost(NO_MARKER).play(contrived(trouble))


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("Unsavable", "attribute 'thing' holds a "), ("Forgetful", "goes on differently")],
)
def test_an_environment_that_cannot_be_stored_says_so(trouble: str, reason: str) -> None:
    found = RehearsalHost(NO_MARKER).play(contrived(trouble))
    assert found.reproducible
    assert found.unsavable is not None
    assert reason in found.unsavable
