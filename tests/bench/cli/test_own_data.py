"""The user's own data in the user's own environment: Pendulum, whose actions go from -2 to 2."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest

from bench.cli import main
from bench.data import import_data, read_npz
from bench.results import TIMING_COLUMNS
from bench.storage import load_checkpoint
from bench.training.domain_record import DomainRecord
from bench.training.policy import ActionScale

EPISODES, LENGTH = 4, 200


@pytest.fixture(scope="module")
def rollouts() -> dict[str, np.ndarray]:
    environment = gymnasium.make("Pendulum-v1")
    environment.action_space.seed(0)
    rows: list[tuple[Any, ...]] = []
    for episode in range(EPISODES):
        observation, _ = environment.reset(seed=episode)
        for step in range(LENGTH):
            action = environment.action_space.sample()
            reached, reward, _, truncated, _ = environment.step(action)
            assert truncated == (step == LENGTH - 1)
            rows.append((observation, action, reward, False, truncated, reached))
            observation = reached
    keys = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    return {
        key: np.array(column) for key, column in zip(keys, zip(*rows, strict=True), strict=True)
    }


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, rollouts: dict[str, np.ndarray]) -> Path:
    place = tmp_path_factory.mktemp("data")
    np.savez(place / "found.npz", **rollouts)  # type: ignore[arg-type]
    command = ["data", "import", str(place / "found.npz"), "swing", "--env", "Pendulum-v1"]
    assert main([*command, "--data-dir", str(place)]) == 0
    return place


def offline(out: Path, data_dir: Path, *more: str, phase: str = "offline") -> list[str]:
    options = [
        "--dataset",
        str(data_dir / "swing.npz"),
        "--env",
        "Pendulum-v1",
        "--chunk-length",
        "2",
    ]
    return [phase, *options, "--preset", "smoke", "--out", str(out), "--device", "cpu", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    assert main(offline(out, data_dir, "--solved-at", "-1e6")) == 0
    return out


def evaluations(out: Path, phase: str = "offline") -> pl.DataFrame:
    (file,) = out.glob(f"packs/*{'--online' if phase == 'online' else '--trqam--*-0'}/eval*")
    return pl.read_parquet(file).drop(TIMING_COLUMNS)


def test_actions_are_scaled_to_the_box_and_back(
    data_dir: Path, rollouts: dict[str, np.ndarray]
) -> None:
    arrays = read_npz(data_dir / "swing.npz")
    kept = arrays["terminals"] == 0
    assert np.abs(arrays["actions"]).max() <= 1.0
    assert np.abs(arrays["actions"]).max() > 0.99
    scale = ActionScale(np.array([-2.0], np.float32), np.array([2.0], np.float32))
    np.testing.assert_allclose(scale(arrays["actions"][kept]), rollouts["actions"], atol=3e-7)


def test_bounds_may_differ_between_entries(tmp_path: Path) -> None:
    low, high = np.array([-3.0, 0.0]), np.array([1.0, 0.5])
    unit = np.array([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    found = {
        "observations": np.zeros((3, 1)),
        "actions": low + (unit + 1) / 2 * (high - low),
        "rewards": np.zeros(3),
        "terminals": np.array([0, 0, 1]),
        "timeouts": np.zeros(3),
    }
    np.savez(tmp_path / "found.npz", **found)
    done = import_data(str(tmp_path / "found.npz"), "mine", tmp_path, action_range=(low, high))
    np.testing.assert_allclose(read_npz(done.path)["actions"][:3], unit, atol=1e-6)
    scale = ActionScale(low.astype(np.float32), high.astype(np.float32))
    np.testing.assert_allclose(scale(unit.astype(np.float32)), found["actions"], atol=1e-6)
    bounds = (np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match="2 entries in a row, the action range 3"):
        import_data(str(tmp_path / "found.npz"), "other", tmp_path, action_range=bounds)
    unbounded = (np.full(2, -np.inf), np.ones(2))
    with pytest.raises(ValueError, match=r"finite numbers, .* needs a version with bounds"):
        import_data(str(tmp_path / "found.npz"), "other", tmp_path, action_range=unbounded)


def test_success_is_a_return(finished: Path, data_dir: Path, tmp_path: Path) -> None:
    rows = evaluations(finished)
    assert rows["success_rate"].to_list() == [1.0, 1.0]
    # A random policy's return is about -1,200; zero is the highest there is.
    assert rows["return_mean"].is_between(-2000.0, -100.0).all()
    assert set(rows["length_mean"]) == {float(LENGTH)}
    assert set(rows["task"]) == {"Pendulum-v1"}
    assert set(rows["data_source"]) == {"imported"}
    assert main(offline(tmp_path / "hard", data_dir, "--solved-at", "1.0")) == 0
    harder = evaluations(tmp_path / "hard")
    assert harder["success_rate"].to_list() == [0.0, 0.0]
    # Nothing else is different: the same numbers, bit for bit.
    told = ["successes", "success_rate", "protocol_fingerprint"]
    assert harder.drop(told).equals(rows.drop(told))
    checkpoints = [
        load_checkpoint(next(place.glob("packs/*--trqam--*")) / "checkpoints")
        for place in (finished, tmp_path / "hard")
    ]
    assert checkpoints[0] is not None
    assert checkpoints[1] is not None
    for name, value in checkpoints[0].tensors.items():
        assert checkpoints[1].tensors[name].equal(value), name


def test_a_video_counts_successes_as_the_table_does(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(
        "bench.api.policies.record", lambda *given, **_: drawn.append(given) or "nobody"
    )
    assert main(["video", str(finished), "--task", "1"]) == 0
    assert "2/2 solved" in capsys.readouterr().out
    ((rollout, episodes, _),) = drawn
    assert tuple(episodes) == (0, 1)  # of two there are not three
    assert rollout.successes == (True, True)


def test_the_online_phase_acts_in_the_environments_own_range(
    finished: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = offline(finished, data_dir, "--solved-at", "-1e6", phase="online")
    assert main(command) == 0, capsys.readouterr().err
    (folder,) = finished.glob("packs/*--online")
    checkpoint = load_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    ring = {
        name: checkpoint.tensors[f"experience.ring.{name}"][0].numpy()
        for name in ("observations", "actions", "rewards")
    }
    normalizer = DomainRecord.read(finished, "Pendulum-v1").normalizer
    cosine, sine, speed = (ring["observations"] * normalizer.scale + normalizer.shift).T
    actions = ring["actions"][:, 0]
    assert 0.5 < np.abs(actions).max() <= 1.0
    # The environment's reward tells which torque it felt: up to 2, not up to 1.
    cost = np.arctan2(sine, cosine) ** 2 + 0.1 * speed**2 + 0.001 * (2.0 * actions) ** 2
    np.testing.assert_allclose(ring["rewards"], -cost, atol=1e-4)
    assert set(evaluations(finished, "online")["success_rate"]) == {1.0}


def test_other_data_under_the_same_name_do_not_continue_the_run(
    rollouts: dict[str, np.ndarray], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, rewards in (("first", rollouts["rewards"]), ("second", rollouts["rewards"] + 1.0)):
        np.savez(tmp_path / f"{name}.npz", **(rollouts | {"rewards": rewards}))
    bounds = (-2.0, 2.0)
    import_data(str(tmp_path / "first.npz"), "swing", tmp_path, action_range=bounds)
    command = offline(tmp_path / "run", tmp_path, "--solved-at", "0", "--agent", "bc")
    assert main(command) == 0
    import_data(
        str(tmp_path / "second.npz"), "swing", tmp_path, action_range=bounds, overwrite=True
    )
    capsys.readouterr()
    assert main(command) == 1
    assert "was begun with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"--env": "Pendulun-v1"}, "did you mean Pendulum-v1"),
        ({"--env": "CartPole-v1"}, "has action_space Discrete(2), expected a Box"),
        ({"--env": "InvertedPendulum-v5"}, "'observations' has shape (804, 3), but"),
        ({"--env": "nowhere:Pendulum-v1"}, "the module 'nowhere'"),
        ({"--dataset": "nothing"}, "'nothing' is neither a .npz file nor imported into"),
        ({"--dataset": "nothing.npz"}, "error: there is no file nothing.npz"),
        ({"--dataset": None}, "--dataset and --env go together"),
        ({"--suite": "ogbench50"}, "give either --suite"),
        ({"--suite": "quick"}, "--suite quick comes with its own data"),
        ({"--chunk-length": "0"}, "--chunk-length must be at least 1"),
        ({"--solved-at": None}, "neither tells info['success']"),
        ({"--env": None, "--dataset": None}, "--chunk-length applies to a task of your own"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_made(
    options: dict[str, str | None],
    complaint: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = {
        "--dataset": str(data_dir / "swing.npz"),
        "--env": "Pendulum-v1",
        "--chunk-length": "2",
        "--solved-at": "0",
    }
    merged = {name: value for name, value in (given | options).items() if value is not None}
    words = [word for pair in merged.items() for word in pair]
    assert main(["offline", *words, "--out", str(tmp_path / "run")]) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "recorded", "complaint"),
    [
        (lambda a: a | {"rewards": np.where(np.arange(804) == 7, np.nan, a["rewards"])}, True,
         "'rewards', row 7: nan is not finite"),
        (lambda a: {k: v for k, v in a.items() if k != "rewards"}, False, "no array 'rewards'"),
        (lambda a: a | {"actions": a["actions"].repeat(2, 1)}, False,
         "'actions' has shape (804, 2)"),
        (lambda a: a, False, "import them with `bench data import FILE NAME --env Pendulum-v1`"),
    ],
)  # fmt: skip
def test_data_that_do_not_fit_are_refused(
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    recorded: bool,
    complaint: str,
    data_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrays = change(dict(read_npz(data_dir / "swing.npz", mapped=False)))
    np.savez(tmp_path / "swing.npz", **arrays)  # type: ignore[arg-type]
    if recorded:  # Only then do the scaled actions get so far.
        record = json.loads((data_dir / "swing.json").read_text())
        (tmp_path / "swing.json").write_text(json.dumps(record | {"files": {}}))
    command = offline(tmp_path / "run", tmp_path, "--solved-at", "0")
    assert main(command) == 2
    assert complaint in capsys.readouterr().err
