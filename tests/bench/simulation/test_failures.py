from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.simulation import (
    EnvironmentLimits,
    EvaluationError,
    Policy,
    SimulatorPool,
    evaluate,
    told_success,
)

BuildPolicy = Callable[[int, int], Policy]
SOUND = "contrived_environments:Counting-None-v0"


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [
        ("Raise", r"ArithmeticError: the simulation diverged \(_make_trouble, line \d+\)"),
        ("Reset", "environment '.*Reset-v0' cannot be made and reset: RuntimeError: no ground"),
        ("Die", "the simulator process ended: exit code 3"),
        ("Nan", r"the environment returned an observation that is not finite .* \[1\] is nan"),
        ("NanReward", "the environment returned a reward that is not finite in float32: nan"),
        (
            "Wide",
            r"the environment returned an observation of shape \(3,\), but its .* has \(2,\)",
        ),
        ("Odd", r".*info\['success'\] is 'yes', expected a bool or one number"),
    ],
)
def test_a_failing_replica_is_named_and_the_others_are_complete(
    trouble: str, reason: str, pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    broken = f"contrived_environments:Counting-{trouble}-v0"
    policy = linear_policy(2, 2)
    expected = evaluate(policy, [SOUND, SOUND], (0, 2), 3, pool=pool)
    result = evaluate(policy, [SOUND, broken, SOUND], (0, 1, 2), 3, pool=pool)
    np.testing.assert_array_equal(result.returns[[0, 2]], expected.returns)
    np.testing.assert_array_equal(result.lengths[[0, 2]], expected.lengths)
    assert result.failures[0] is None
    assert result.failures[2] is None
    failure = result.failures[1]
    assert isinstance(failure, EvaluationError)
    assert (failure.task, failure.replica) == (broken, 1)
    assert 0 <= failure.episode < 3
    with pytest.raises(EvaluationError, match=rf"{broken}, replica 1, episode \d: {reason}"):
        result.raise_failures()
    expected.raise_failures()


def test_an_environment_that_hangs_or_swallows_memory_stops_its_replica_alone(
    pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    policy = linear_policy(2, 2)
    expected = evaluate(policy, [SOUND], (0,), 2, pool=pool)
    broken = [f"contrived_environments:Counting-{name}-v0" for name in ("Hang", "Greedy")]
    # The third step of the first never returns, that of the second takes memory without end.
    limits = EnvironmentLimits(seconds=3.0, memory=1 << 28)
    with SimulatorPool(1, limits=limits) as limited:
        result = evaluate(policy, [SOUND, *broken], (0, 1, 2), 2, pool=limited)
        again = evaluate(policy, [SOUND], (0,), 2, pool=limited)
    hung, greedy = (str(failure) for failure in result.failures[1:])
    assert "did not return from a call within 3 s (--env-timeout" in hung
    assert "MemoryError" in greedy
    assert "--env-memory" in greedy
    assert result.failures[0] is None
    assert result.restarts == 1
    for outcome in (result, again):
        np.testing.assert_array_equal(outcome.returns[0], expected.returns[0])


@pytest.mark.parametrize("limits", [{"seconds": 0.0}, {"seconds": np.nan}, {"memory": 0}])
def test_limits_that_cannot_be_kept_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="limit of an environment must be"):
        EnvironmentLimits(**limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({}, None),
        ({"success": None}, None),
        ({"success": None, "is_success": True}, True),
        ({"success": np.array([True])}, True),
        ({"success": 0.0, "is_success": True}, False),
        ({"is_success": np.float32(1.0)}, True),
    ],
)
def test_success_is_what_the_environment_says(
    info: dict[str, object], success: bool | None
) -> None:
    assert told_success(info) is success


@pytest.mark.parametrize("told", [np.nan, "yes", [True, False], object()])
def test_success_that_is_no_truth_value_is_refused(told: object) -> None:
    with pytest.raises(ValueError, match=r"info\['success'\] is .*, expected a bool or one number"):
        told_success({"success": told})


def test_all_replicas_failing_is_a_result_too(linear_policy: BuildPolicy) -> None:
    task = "contrived_environments:Counting-Reset-v0"
    result = evaluate(linear_policy(2, 2), [task], [0], 3, workers=0)
    assert isinstance(result.failures[0], EvaluationError)
    assert result.steps == 0


def test_a_worker_that_dies_once_costs_only_time(
    pool: SimulatorPool,
    linear_policy: BuildPolicy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CONTRIVED_FLAG", str(tmp_path / "died"))
    task = "contrived_environments:Counting-DieOnce-v0"
    policy = linear_policy(2, 2)
    with SimulatorPool(2) as fresh:  # so that the variable reaches the workers
        result = evaluate(policy, [SOUND, task], (0, 1), 4, pool=fresh)
    expected = evaluate(policy, [SOUND, SOUND], (0, 1), 4, pool=pool)
    # Both workers hold such episodes, and the second may begin one before the first left its flag.
    assert result.restarts in (1, 2)
    assert result.failures == (None, None)
    np.testing.assert_array_equal(result.returns, expected.returns)
    np.testing.assert_array_equal(result.lengths, expected.lengths)


def test_a_worker_killed_between_chunks_is_replaced(
    pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    policy = linear_policy(2, 2)
    expected = evaluate(policy, [SOUND, SOUND], (0, 1), 4, pool=pool)
    calls = 0

    def killing(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(pool.process_ids[1], signal.SIGKILL)
        return policy(observations, alive)

    result = evaluate(killing, [SOUND, SOUND], (0, 1), 4, pool=pool)
    assert result.restarts == 1
    np.testing.assert_array_equal(result.returns, expected.returns)


def test_actions_that_are_not_finite_stop_their_replica(linear_policy: BuildPolicy) -> None:
    policy = linear_policy(2, 2)
    expected = evaluate(policy, [SOUND], [0], 3, workers=0)

    def half_broken(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        actions = policy(observations, alive)
        actions[1, 2] = np.nan
        return actions

    result = evaluate(half_broken, [SOUND, SOUND], (0, 1), 3, workers=0)
    np.testing.assert_array_equal(result.returns[0], expected.returns[0])
    assert result.failures[0] is None
    failure = result.failures[1]
    assert isinstance(failure, EvaluationError)
    assert (failure.replica, failure.episode) == (1, 2)
    assert "not finite" in failure.reason


def test_an_error_of_the_policy_leaves_the_pool_usable(
    pool: SimulatorPool, linear_policy: BuildPolicy
) -> None:
    def interrupted(observations: np.ndarray, alive: np.ndarray) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(interrupted, [SOUND], [0], 2, pool=pool)
    again = evaluate(linear_policy(2, 1), [SOUND], [0], 2, pool=pool)
    assert again.failures == (None,)


def test_an_interruption_while_workers_start_waits_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = SimulatorPool._started

    def interrupted(self: SimulatorPool, place: int) -> object:
        if place == 1:
            raise KeyboardInterrupt
        return start(self, place)

    monkeypatch.setattr(SimulatorPool, "_started", interrupted)
    before = {process.pid for process in multiprocessing.active_children()}
    with SimulatorPool(2) as pool:
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            pool.call("begin", [None, None])
        # Two workers that are waited for in turn take the patience of `close` twice.
        assert time.monotonic() - began < 4.0
        assert {process.pid for process in multiprocessing.active_children()} <= before


UNGUARDED = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from bench.simulation import evaluate

def policy(observations, alive):
    return np.zeros((*alive.shape, 1, 2), dtype=np.float32)

print(evaluate(policy, [{task!r}], (0,), episodes=2, workers=2).lengths.tolist())
"""


def test_a_script_without_a_guard_is_told_so_and_standard_input_works(tmp_path: Path) -> None:
    text = UNGUARDED.format(folder=str(Path(__file__).parent), task=SOUND)
    script = tmp_path / "unguarded.py"
    script.write_text(text)
    runs = [
        subprocess.Popen(
            [sys.executable, name], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in (str(script), "-")
    ]  # fmt: skip
    (_, refused), (output, errors) = (
        run.communicate(text if number else None, timeout=60) for number, run in enumerate(runs)
    )
    assert [run.returncode for run in runs] == [1, 0]
    assert refused.count("Traceback") == 1
    last = refused.strip().splitlines()[-1]
    assert last.startswith("bench.errors.BenchError: a simulator process did not start")
    assert 'if __name__ == "__main__":' in last
    assert errors == ""
    assert output == "[[7, 7]]\n"


PARENT = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from bench.simulation import SimulatorPool, evaluate

if __name__ == "__main__":
    with SimulatorPool(2) as pool:
        def policy(observations, alive):
            print(*pool.process_ids, flush=True)
            return np.zeros((1, 4, 100, 2), dtype=np.float32)

        while True:
            evaluate(policy, ["contrived_environments:Counting-Slow-v0"], [0], 4, pool=pool)
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_worker_outlives_its_parent(sent: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=str(Path(__file__).parent)))
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    workers = [int(word) for word in parent.stdout.readline().split()]
    assert len(workers) == 2
    assert all(alive(worker) for worker in workers)
    time.sleep(0.1)  # into the first chunk
    if sent is signal.SIGINT:
        os.killpg(parent.pid, sent)  # Ctrl-C reaches the workers as well
    else:
        parent.send_signal(sent)
    _, errors = parent.communicate(timeout=20)
    assert parent.returncode != 0
    assert errors.count("Traceback") == (1 if sent is signal.SIGINT else 0), errors
    deadline = time.monotonic() + 10
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker is still there"
        time.sleep(0.05)
