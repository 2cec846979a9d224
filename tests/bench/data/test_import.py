from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.cli.data import Import
from bench.data import (
    RECIPES,
    DataDamaged,
    DataMissing,
    DataRecord,
    import_data,
    load,
    read_npz,
)

from .conftest import short

LENGTHS = (4, 1, 3)  # Transitions of the episodes below; the second one ends in a terminal state.
TERMINATED = (False, True, False)


def _episodes() -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    return [
        {
            "observations": generator.normal(size=(length + 1, 3)),
            "actions": generator.uniform(-1, 1, (length, 2)),
            "rewards": generator.normal(size=length),
            "terminations": np.arange(length) == (length - 1 if end else length),
            "truncations": np.arange(length) == (length if end else length - 1),
        }
        for length, end in zip(LENGTHS, TERMINATED, strict=True)
    ]


def _transitions(**changes: Any) -> dict[str, np.ndarray]:
    episodes = _episodes()
    arrays = {
        "observations": np.concatenate([e["observations"][:-1] for e in episodes]),
        "next_observations": np.concatenate([e["observations"][1:] for e in episodes]),
        "actions": np.concatenate([e["actions"] for e in episodes]),
        "rewards": np.concatenate([e["rewards"] for e in episodes]),
        "terminals": np.concatenate([e["terminations"] for e in episodes]),
        "timeouts": np.concatenate([e["truncations"] for e in episodes]),
    } | changes
    return {key: array for key, array in arrays.items() if array is not None}


def _check(folder: Path, name: str = "mine") -> None:
    """The imported data are those of `_episodes`."""
    data = load(name, ["mine"], folder)
    ends = np.cumsum(np.array(LENGTHS) + 1) - 1
    np.testing.assert_array_equal(data.episode_ends, ends)
    for episode, end, terminated in zip(_episodes(), ends, TERMINATED, strict=True):
        steps = len(episode["actions"])
        rows = slice(end - steps, end)
        observed = data.observations[end - steps : end + 1]
        np.testing.assert_array_equal(observed, episode["observations"].astype(np.float32))
        np.testing.assert_array_equal(data.actions[rows], episode["actions"].astype(np.float32))
        np.testing.assert_array_equal(data.rewards[0, rows], episode["rewards"].astype(np.float32))
        expected = np.ones(steps, bool)
        expected[-1] = not terminated
        np.testing.assert_array_equal(data.masks[0, rows], expected)
    assert data.source == "imported"


def _hdf5(path: Path, episodes: list[dict[str, Any]]) -> str:
    with h5py.File(path, "w") as file:
        for i in reversed(range(len(episodes))):
            group = file.create_group(f"episode_{i}")
            for key, value in episodes[i].items():
                if isinstance(value, dict):
                    inner = group.create_group(key)
                    for name, array in value.items():
                        inner[name] = array
                else:
                    group[key] = value
    return str(path)


def test_transitions_in_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_transitions())
    done = import_data(str(tmp_path / "a.npz"), "mine", tmp_path / "d")
    assert done.path == tmp_path / "d" / "mine.npz"
    assert done.recognised[0] == (
        "layout: transitions: observations observations, next states next_observations, true ends "
        "terminals, cut-offs timeouts, rewards rewards"
    )
    assert done.recognised[1] == (
        "episodes: 3 of 1 to 4 transitions, 8 in all; true ends, masked as no value follows them: 1"
    )
    assert done.recognised[2].startswith("values: observations 3 wide, actions 2 wide, ")
    _check(tmp_path / "d")
    record = DataRecord.read(tmp_path / "d" / "mine.json")
    assert record is not None
    assert (record.source, record.origin) == ("imported", "a.npz")


def test_ends_are_seen_in_next_observations(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_transitions(timeouts=None))
    import_data(str(tmp_path / "a.npz"), "mine", tmp_path)
    _check(tmp_path)


def test_transitions_in_hdf5_as_d4rl_has_them(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, array in _transitions().items():
            file[key] = array
        file["metadata/algorithm"] = "SAC"
        file["version"] = 2
    import_data(str(tmp_path / "a.hdf5"), "mine", tmp_path)
    _check(tmp_path)


def test_episodes_in_hdf5_as_minari_has_them(tmp_path: Path) -> None:
    episodes = [_episodes()[0] for _ in range(12)]
    for i, episode in enumerate(episodes):
        episode["rewards"] = np.full(4, float(i))
    path = _hdf5(tmp_path / "main_data.hdf5", _episodes())
    import_data(path, "mine", tmp_path)
    _check(tmp_path)
    path = _hdf5(tmp_path / "many.hdf5", episodes)
    import_data(path, "many", tmp_path)
    # By number and not by name: episode_10 comes after episode_9.
    rewards = load("many", ["many"], tmp_path).rewards[0]
    np.testing.assert_array_equal(rewards[::5], np.arange(12))


def test_minari_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    import gymnasium

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=i,
            observations=list(e["observations"]),
            actions=list(e["actions"]),
            rewards=list(e["rewards"]),
            terminations=list(e["terminations"]),
            truncations=list(e["truncations"]),
        )
        for i, e in enumerate(_episodes())
    ]
    # Writing warns that no environment is named; reading warns of nothing.
    with pytest.warns(UserWarning, match=r"eval_env|env_spec"):
        minari.create_dataset_from_buffers(
            "test/mine-v0",
            buffer=buffers,
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float64),
            action_space=gymnasium.spaces.Box(-1, 1, (2,), np.float64),
            algorithm_name="none",
            author="none",
            author_email="none",
            code_permalink="none",
            description="none",
        )
    import_data("minari:test/mine-v0", "mine", tmp_path)
    _check(tmp_path)
    with pytest.raises(ValueError, match="minari download test/other-v0"):
        import_data("minari:test/other-v0", "other", tmp_path)


def test_without_minari_its_use_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ValueError, match="needs the package minari"):
        import_data("minari:D4RL/door/human-v2", "mine", tmp_path)


def test_a_cut_off_episode_without_next_observations_loses_its_last_step(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_transitions(next_observations=None))
    import_data(str(tmp_path / "a.npz"), "mine", tmp_path)
    data = load("mine", ["mine"], tmp_path)
    # 4 -> 3 steps, 1 terminal step kept (its successor is never used), 3 -> 2 steps.
    np.testing.assert_array_equal(np.diff(data.episode_ends, prepend=-1) - 1, [3, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(~data.masks[0]), [4])


def test_dictionary_observations_are_joined_in_order(tmp_path: Path) -> None:
    episodes: list[dict[str, Any]] = []
    for episode in _episodes():
        states = episode["observations"]
        parts = {"goal": states[:, 2:], "observation": states[:, :2]}
        episodes.append({**episode, "observations": parts})
    path = _hdf5(tmp_path / "a.h5", episodes)
    import_data(path, "mine", tmp_path, observation_keys=("observation", "goal"))
    _check(tmp_path)
    # As Gymnasium's FlattenObservation joins them: by name.
    joined = import_data(path, "other", tmp_path)
    ordered = read_npz(tmp_path / "mine.npz")["observations"][:, [2, 0, 1]]
    np.testing.assert_array_equal(read_npz(joined.path)["observations"], ordered)
    assert "observations goal+observation," in joined.recognised[0]
    with pytest.raises(DataDamaged, match="no array 'other'"):
        import_data(path, "new", tmp_path, observation_keys=("other",))


def test_ogbench_files_keep_their_states_and_tasks(
    tiny_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny_dir / "scene-play-v0.npz"
    monkeypatch.setitem(RECIPES, "scene-play", replace(short("scene-play-v0"), episodes=3))
    import_data(str(source), "scene-play-v0", tmp_path)
    ours, theirs = read_npz(tmp_path / "scene-play-v0.npz"), read_npz(source)
    assert set(ours) == set(theirs)
    for key, array in theirs.items():
        np.testing.assert_array_equal(ours[key], array)
        assert ours[key].dtype == array.dtype
    assert load("scene-play-v0", ["task1"], tmp_path).source == "imported"


@given(
    low=st.floats(-10, 10),
    width=st.floats(0.1, 10),
    unit=st.lists(st.floats(0, 1), min_size=3, max_size=3),
)
def test_actions_are_scaled_from_their_range(
    tmp_path_factory: pytest.TempPathFactory, low: float, width: float, unit: list[float]
) -> None:
    folder = tmp_path_factory.mktemp("scale")
    actions = low + width * np.array(unit)[:, None]
    states = np.arange(3.0)[:, None]
    np.savez(
        folder / "a.npz",
        observations=states,
        next_observations=states + 1,
        actions=actions,
        rewards=np.zeros(3),
    )
    bounds = (low, low + width)
    import_data(str(folder / "a.npz"), "mine", folder, terminals="none", action_range=bounds)
    imported = load("mine", ["mine"], folder).actions[:3, 0]
    np.testing.assert_allclose(imported, 2 * np.array(unit) - 1, atol=2e-5)
    record = DataRecord.read(folder / "mine.json")
    assert record is not None
    assert record.recipe["action_range"] == [low, low + width]


def _set(array: np.ndarray, index: tuple[int, ...], value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


BAD = {
    "action range": (
        lambda a: {"actions": _set(a["actions"], (6, 1), 3.0)},
        r"'actions', row 6, column 1: 3.0 lies outside \[-1, 1\]",
    ),
    "nan": (
        lambda a: {"observations": _set(a["observations"], (2, 0), np.nan)},
        r"'observations', row 2, column 0: nan is not finite",
    ),
    "nan action": (
        lambda a: {"actions": _set(a["actions"], (2, 0), np.nan)},
        r"'actions', row 2, column 0: nan is not finite",
    ),
    "reward": (
        lambda a: {"rewards": _set(a["rewards"], (7,), np.inf)},
        r"'rewards', row 7: inf is not finite",
    ),
    "lengths": (lambda a: {"rewards": a["rewards"][:-1]}, r"lengths differ: .*'rewards': 7"),
    "no actions": (lambda a: {"actions": None}, r"no array 'actions'"),
    "shape": (
        lambda a: {"next_observations": a["next_observations"][:, :2]},
        r"'next_observations' has shape \(8, 2\)",
    ),
    "images": (
        lambda a: {"observations": np.zeros((8, 4, 4, 3))},
        r"'observations' has type float64 and shape \(8, 4, 4, 3\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_bad_data_are_named(case: str, kind: str, tmp_path: Path) -> None:
    change, message = BAD[case]
    arrays = _transitions(**change(_transitions()))
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for key, array in arrays.items():
                file[key] = array
    with pytest.raises(DataDamaged, match=message) as caught:
        import_data(str(path), "mine", tmp_path / "d")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "d").exists()


def test_a_bad_episode_is_named(tmp_path: Path) -> None:
    episodes = _episodes()
    episodes[2]["observations"][1, 2] = np.nan
    path = _hdf5(tmp_path / "a.hdf5", episodes)
    with pytest.raises(DataDamaged, match=r"a\.hdf5: 'episode_2/observations', row 1, column 2"):
        import_data(path, "mine", tmp_path)
    episodes = _episodes()
    episodes[1]["observations"] = np.zeros((2, 4))
    path = _hdf5(tmp_path / "b.hdf5", episodes)
    with pytest.raises(ValueError, match="episode 1 has 4 observations"):
        import_data(path, "mine", tmp_path)


def test_what_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"no")
    with pytest.raises(DataDamaged, match=r"a\.hdf5: not a readable HDF5 file"):
        import_data(str(tmp_path / "a.hdf5"), "mine", tmp_path)
    with pytest.raises(DataMissing, match=r"no file or folder .*none\.npz to import"):
        import_data(str(tmp_path / "none.npz"), "mine", tmp_path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(ValueError, match=r"expected a file \.npz"):
        import_data(str(tmp_path / "a.csv"), "mine", tmp_path)
    for name in ("", "../x", "a b", ".hidden"):
        with pytest.raises(ValueError, match="cannot name a dataset"):
            import_data("x.npz", name, tmp_path)
    with pytest.raises(ValueError, match="each lowest one below its highest"):
        import_data("x.npz", "mine", tmp_path, action_range=(1.0, 1.0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pointmaze-medium-navigate-v0", r"8 transitions, .* stands for 1,000,000: .* not whole"),
        ("cube-triple-play-10m-v0", "a folder of 10 files"),
        ("antsoccer-arena-navigate-v0", r"'observations' has shape \(3,\), in antsoccer-arena-v0"),
    ],
)
def test_a_published_name_is_for_data_of_its_sizes(tmp_path: Path, name: str, message: str) -> None:
    np.savez(tmp_path / "a.npz", **_transitions())
    with pytest.raises(
        ValueError, match=rf"{message}.* give them a name of your own, not '{name}'"
    ):
        import_data(str(tmp_path / "a.npz"), name, tmp_path)
    import_data(str(tmp_path / "a.npz"), "arm-play-v0", tmp_path)  # OGBench has no such thing.
    assert not (tmp_path / f"{name}.npz").exists()


def test_arrays_of_objects_are_named(tmp_path: Path) -> None:
    ragged = np.empty(2, object)
    ragged[:] = [np.zeros((3, 2)), np.zeros((4, 2))]
    path = tmp_path / "a.npz"
    np.savez(path, **_transitions(actions=ragged))
    with pytest.raises(DataDamaged, match="array 'actions' holds Python objects") as caught:
        import_data(str(path), "mine", tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "store one array of numbers" in str(caught.value)


def test_taken_names_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_transitions())
    import_data(str(tmp_path / "a.npz"), "mine", tmp_path)
    with pytest.raises(ValueError, match="exists: replace it with --overwrite"):
        import_data(str(tmp_path / "a.npz"), "mine", tmp_path)
    import_data(str(tmp_path / "a.npz"), "mine", tmp_path, overwrite=True)


def test_data_without_rewards_need_known_tasks(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **_transitions(rewards=None))
    import_data(str(tmp_path / "a.npz"), "mine", tmp_path)
    assert "rewards" not in read_npz(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match="holds no rewards, and 'mine' is not a dataset"):
        load("mine", ["mine"], tmp_path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", **_transitions())
    assert Import(str(tmp_path / "a.npz"), "mine", data_dir=tmp_path).run() == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == ["layout", "episodes", "values", "mine"]
    assert str(tmp_path / "mine.npz") in printed[-1]
    command = ["data", "import", str(tmp_path / "a.npz"), "other", "--data-dir", str(tmp_path)]
    assert main([*command, "--timeouts", "nothing"]) == 2
    assert "--timeouts nothing: there is no such array" in capsys.readouterr().err
    assert main([*command, "--terminals", "none", "--timeouts", "none"]) == 0
    assert "true ends, masked as no value follows them: 0" in capsys.readouterr().out
