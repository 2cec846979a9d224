"""What import recognises, what it says of it, and what it refuses to guess."""

import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bench.data import DataDamaged, import_data, load, read_npz

from . import layouts
from .layouts import LENGTHS, Arrays, states, transitions, write_hdf5


def _import(source: Path, name: str = "mine", **options: Any) -> dict[str, np.ndarray]:
    done = import_data(str(source), name, source.parent / "d", overwrite=True, **options)
    return read_npz(done.path, mapped=False)


def _npz(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "a.npz", **{k: v for k, v in arrays.items() if v is not None})
    return folder / "a.npz"


@pytest.mark.parametrize("layout", layouts.COMPLETE)
def test_all_layouts_give_the_same_arrays(layout: str, tmp_path: Path) -> None:
    found = _import(layouts.COMPLETE[layout](tmp_path))
    expected = states()
    assert set(found) == set(expected)
    for key, array in expected.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype


def test_layouts_without_final_states_keep_terminal_transitions(tmp_path: Path) -> None:
    found = _import(layouts.d3rlpy(tmp_path))
    # Of 4, 2 and 3 transitions the last one of what was cut off has no next state.
    assert np.flatnonzero(found["terminals"]).tolist() == [3, 6, 9]
    assert np.flatnonzero(~found["masks"]).tolist() == [5]
    found = _import(layouts.lerobot(tmp_path))
    assert np.flatnonzero(found["terminals"]).tolist() == [4, 7, 11]
    kept = np.delete(np.arange(12), 7)  # The terminal state is no frame; a copy stands for it.
    np.testing.assert_array_equal(found["observations"][kept], states()["observations"][kept])


def test_three_lines_say_what_was_recognised(tmp_path: Path) -> None:
    done = import_data(str(layouts.minari(tmp_path)), "mine", tmp_path)
    rewards = transitions()["rewards"]
    low, high = f"{rewards.min():.4g}", f"{rewards.max():.4g}"
    assert done.recognised[0] == (
        "layout: episodes (Minari): observations agent/pos+agent/vel+goal, "
        "next states the next state in each episode, true ends terminations, "
        "cut-offs truncations, rewards rewards; not read: infos"
    )
    assert done.recognised[1].startswith("episodes: 3 of 2 to 4 transitions, 9 in all; true ends, ")
    assert done.recognised[2].endswith(f"rewards {low} to {high}")
    done = import_data(str(layouts.d3rlpy(tmp_path)), "other", tmp_path)
    assert "left out, as the next state is not in the file: 2" in done.recognised[1]


NAMES = [
    ("terminations", "truncations"),
    ("terminated", "truncated"),
    ("done", "truncated"),
    ("dones", "timeouts"),
]


@pytest.mark.parametrize(("terminal", "timeout"), NAMES)
def test_ends_are_understood_by_their_usual_names(
    terminal: str, timeout: str, tmp_path: Path
) -> None:
    arrays = transitions()
    arrays[terminal], arrays[timeout] = arrays.pop("terminals"), arrays.pop("timeouts")
    found = _import(_npz(tmp_path, arrays))
    np.testing.assert_array_equal(found["masks"], states()["masks"])


def _renamed(**names: str | None) -> Arrays:
    arrays = transitions()
    for old, new in names.items():
        array = arrays.pop(old)
        if new is not None:
            arrays[new] = array
    return arrays


UNCLEAR: dict[str, tuple[Arrays, str, dict[str, Any]]] = {
    "unknown words": (
        _renamed(terminals="fell", timeouts="bored"),
        r"--terminals KEY, or give --terminals none .*fell, bored\)",
        {"terminals": "fell", "timeouts": "bored"},
    ),
    "RLDS": (
        _renamed(terminals="is_terminal", timeouts="is_last"),
        "a word of RLDS",
        {"terminals": "is_terminal", "timeouts": "is_last"},
    ),
    "done alone": (
        _renamed(terminals="done", timeouts=None),
        "give --terminals done if",
        {"terminals": "done"},
    ),
    "states or transitions": (
        _renamed(timeouts=None, next_observations=None),
        "give --layout ogbench.*--timeouts none",
        {"timeouts": "none"},
    ),
    "cut-offs unknown": (
        _renamed(terminals="terminated", timeouts=None, next_observations=None),
        "give --timeouts none",
        {"layout": "transitions"},
    ),
    "two of a kind": (
        transitions() | {"terminated": transitions()["terminals"]},
        "'terminals' and 'terminated' are there: say which with --terminals KEY",
        {"terminals": "terminated"},
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_is_unclear_is_asked(case: str, tmp_path: Path) -> None:
    arrays, message, answer = UNCLEAR[case]
    path = _npz(tmp_path, arrays)
    with pytest.raises(ValueError, match=message) as caught:
        _import(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1
    assert not (tmp_path / "d").exists()
    found = _import(path, **answer)
    assert (~found["masks"]).sum() == 1
    assert found["rewards"][~found["masks"]] == transitions()["rewards"][5]


def test_done_in_both_senses_is_asked(tmp_path: Path) -> None:
    arrays = transitions()
    arrays["done"] = arrays.pop("terminals") | arrays["timeouts"]
    with pytest.raises(ValueError, match="row 3 is marked by 'done' and as cut off"):
        _import(_npz(tmp_path, arrays))


def test_contradictions_are_refused(tmp_path: Path) -> None:
    arrays = transitions()
    _import(_npz(tmp_path, arrays | {"masks": 1 - arrays["terminals"]}))
    with pytest.raises(DataDamaged, match=r"'masks' contradicts .* row 5"):
        _import(_npz(tmp_path, arrays | {"masks": np.ones(9)}))
    both = arrays | {"timeouts": arrays["timeouts"] | arrays["terminals"]}
    np.testing.assert_array_equal(_import(_npz(tmp_path, both))["masks"], states()["masks"])
    ends = both["timeouts"].copy()
    ends[5] = False
    more = {"timeouts": None, "episode_terminals": ends}
    with pytest.raises(DataDamaged, match="row 5 is terminal but 'episode_terminals' is 0"):
        _import(_npz(tmp_path, arrays | more))


@pytest.mark.parametrize("value", [np.nan, 2.0, -1.0, 0.5, 3.0])
@pytest.mark.parametrize("key", ["terminals", "timeouts"])
def test_flags_are_0_or_1(key: str, value: float, tmp_path: Path) -> None:
    arrays = transitions()
    arrays[key] = arrays[key].astype(np.float64)
    arrays[key][6] = value
    with pytest.raises(DataDamaged, match=rf"a\.npz: '{key}', row 6: {value} is n"):
        _import(_npz(tmp_path, arrays))


@pytest.mark.parametrize(("first", "second"), [("f8", "f4"), ("f4", "f8"), ("f2", "f4")])
def test_rounding_cuts_no_episode(first: str, second: str, tmp_path: Path) -> None:
    path = np.cumsum(np.random.default_rng(0).normal(size=(402, 3)), axis=0)
    cut = np.isin(np.arange(400), [199, 399])
    arrays = {
        "observations": np.concatenate([path[:200], path[201:401]]).astype(first),
        "next_observations": np.concatenate([path[1:201], path[202:]]).astype(second),
        "actions": np.zeros((400, 1)),
        "rewards": np.zeros(400),
        "terminals": np.zeros(400),
    }
    for flags in ({"timeouts": cut}, {}):
        found = _import(_npz(tmp_path, arrays | flags))
        assert np.flatnonzero(found["terminals"]).tolist() == [200, 401]
    noisy = arrays | {"next_observations": arrays["next_observations"] + 0.1, "timeouts": cut}
    with pytest.raises(ValueError, match="give --next-observations none"):
        _import(_npz(tmp_path, noisy))
    found = _import(_npz(tmp_path, noisy), next_observations="none")
    assert np.flatnonzero(found["terminals"]).tolist() == [199, 399]


def test_rewards_are_one_number_a_row(tmp_path: Path) -> None:
    column = {"rewards": transitions()["rewards"][:, None], "terminals": np.zeros((9, 1))}
    assert _import(_npz(tmp_path, transitions() | column))["rewards"].shape == (12,)
    rows = {"rewards": states()["rewards"][:, None], "masks": states()["masks"][:, None]}
    found = _import(_npz(tmp_path, states() | rows))
    assert found["rewards"].shape == found["masks"].shape == (12,)
    for arrays in (transitions(), states()):
        wide = {"rewards": np.zeros((len(arrays["rewards"]), 2))}
        with pytest.raises(
            DataDamaged, match=r"'rewards' has shape \(\d+, 2\); expected one value"
        ):
            _import(_npz(tmp_path, arrays | wide))


@pytest.mark.parametrize("layout", ["transitions", "states"])
@pytest.mark.parametrize("key", ["rewards", "observations"])
@pytest.mark.parametrize("value", [1e300, 3e38, 1e37, -1e16, np.nan, np.inf])
def test_numbers_can_be_trained_on(layout: str, key: str, value: float, tmp_path: Path) -> None:
    arrays = transitions() if layout == "transitions" else states()
    arrays[key] = arrays[key].astype(np.float64)
    arrays[key][2] = value
    with pytest.raises(DataDamaged, match=f"'{key}', row 2.* (is not finite|is larger than 1e.15)"):
        _import(_npz(tmp_path, arrays))


@pytest.mark.parametrize("value", [2.0, 0.5, np.nan])
def test_masks_are_0_or_1_wherever_they_are_read(value: float, tmp_path: Path) -> None:
    arrays = states()
    arrays["masks"] = arrays["masks"].astype(np.float32)
    arrays["masks"][3] = value
    path = _npz(tmp_path, arrays)
    with pytest.raises(DataDamaged, match="'masks', row 3"):
        _import(path)
    with pytest.raises(DataDamaged, match="'masks', row 3"):
        load(str(path), ["mine"])


ODD: dict[str, tuple[Arrays, str]] = {
    "int8 extremes": (
        {"actions": np.full((9, 2), -128, np.int8)},
        r"holds int8: .*discrete action space.*--action-range",
    ),
    "discrete": ({"actions": np.arange(9) % 2}, "discrete action space"),
    "complex": ({"rewards": np.zeros(9, complex)}, "'rewards' has type complex128"),
    "text": ({"terminals": np.full(9, "no")}, "'terminals' has type <U2"),
    "no width": ({"observations": np.zeros((9, 0))}, r"'observations' has .* shape \(9, 0\)"),
    "clock": (
        {"observations": np.column_stack([np.zeros(9), 1.7e9 + 0.05 * np.arange(9)])},
        r"'observations', column 1: .* are all but equal in float32: subtract an offset",
    ),
    "empty": ({k: v[:0] for k, v in transitions().items()}, "no rows"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_values_are_named(case: str, tmp_path: Path) -> None:
    changes, message = ODD[case]
    arrays = transitions() | changes
    if case == "clock":
        del arrays["next_observations"]
    with pytest.raises(ValueError, match=message):
        _import(_npz(tmp_path, arrays))


def test_quantised_actions_have_a_range(tmp_path: Path) -> None:
    steps = np.linspace(-128, 127, 18).round().astype(np.int8).reshape(9, 2)
    path = _npz(tmp_path, transitions() | {"actions": steps})
    found = _import(path, action_range=(-128, 127))
    assert (found["actions"].min(), found["actions"].max()) == (-1.0, 1.0)
    with pytest.raises(DataDamaged, match=r"row 0, column 0: -1\.007.* outside"):
        _import(path, action_range=(-127, 127))


def test_observations_are_chosen_or_asked_for(tmp_path: Path) -> None:
    path = layouts.minari(tmp_path)
    whole = states()["observations"]
    np.testing.assert_array_equal(
        _import(path, observation_keys=("goal", "agent"))["observations"], whole[:, [2, 0, 1]]
    )
    np.testing.assert_array_equal(
        _import(path, observation_keys=("agent/vel",))["observations"], whole[:, [1]]
    )
    with pytest.raises(DataDamaged, match=r"no array 'agent/mass' in 'observations'"):
        _import(path, observation_keys=("agent/mass",))
    with h5py.File(path, "a") as file:
        for key, length in zip(("episode_0", "episode_1", "episode_2"), LENGTHS, strict=True):
            file[f"{key}/observations/camera"] = np.zeros((length + 1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"camera.* is no vector: say which .*--observation-keys"):
        _import(path)
    assert _import(path, observation_keys=("goal",))["observations"].shape == (12, 1)


def test_tuples_are_joined_by_number(tmp_path: Path) -> None:
    tree = {}
    for i, episode in enumerate(layouts.episodes()):
        seen = episode["observations"]
        parts = {f"_index_{j}": np.full((len(seen), 1), j) * 1.0 for j in range(11)}
        tree[f"episode_{i}"] = episode | {"observations": parts}
    found = _import(write_hdf5(tmp_path / "a.hdf5", tree))
    np.testing.assert_array_equal(found["observations"][0], np.arange(11))


def test_an_episode_without_its_final_state_is_named(tmp_path: Path) -> None:
    tree = {f"episode_{i}": episode for i, episode in enumerate(layouts.episodes())}
    tree["episode_2"]["observations"] = tree["episode_2"]["observations"][:-1]
    path = write_hdf5(tmp_path / "a.hdf5", tree)
    with pytest.raises(DataDamaged, match="'episode_2' has 3 states and 3 actions"):
        _import(path)
    tree["episode_2"]["observations"] = np.zeros((4, 3))
    tree["episode_2"]["terminations"][1] = True
    with pytest.raises(DataDamaged, match="episode_2: row 1 is flagged as an end, in the middle"):
        _import(write_hdf5(tmp_path / "b.hdf5", tree))


def test_a_file_is_not_imported_onto_itself(tmp_path: Path) -> None:
    path = _npz(tmp_path, transitions())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the file to be written"):
        import_data(str(path), "a", tmp_path, overwrite=True)
    assert path.read_bytes() == before


def test_nothing_outside_an_hdf5_file_is_read(tmp_path: Path) -> None:
    secret = write_hdf5(tmp_path / "secret.h5", transitions())
    (tmp_path / "raw").write_bytes(bytes(9 * 8))
    arrays = transitions()
    del arrays["rewards"]
    for number, kind in enumerate(("external link", "soft link", "external storage", "virtual")):
        path = write_hdf5(tmp_path / f"{number}.h5", arrays)
        with h5py.File(path, "a") as file:
            if kind == "external link":
                file["rewards"] = h5py.ExternalLink(str(secret), "/rewards")
            elif kind == "soft link":
                file["rewards"] = h5py.SoftLink("/terminals")
            elif kind == "external storage":
                place = [(str(tmp_path / "raw"), 0, 72)]
                file.create_dataset("rewards", (9,), "f8", external=place)
            else:
                layout = h5py.VirtualLayout((9,), "f4")
                layout[:] = h5py.VirtualSource(str(secret), "rewards", (9,))
                file.create_virtual_dataset("rewards", layout)
        with pytest.raises(DataDamaged, match=r"\d\.h5/rewards: .*store the array itself"):
            _import(path)


def test_a_group_within_itself_is_refused(tmp_path: Path) -> None:
    path = layouts.minari(tmp_path)
    with h5py.File(path, "a") as file:
        inner = file["episode_0/observations/agent"]
        inner["again"] = file["episode_0/observations"]
    with pytest.raises(DataDamaged, match="lies within itself"):
        _import(path)


def test_sizes_are_known_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _npz(tmp_path, transitions() | {"video": np.zeros((9, 10**5), np.float32)})
    assert "video" not in _import(path)  # Nobody needs it.
    monkeypatch.setattr("bench.data._import.available_memory", lambda: 500)
    with pytest.raises(DataDamaged, match=r"its arrays take .* GB of memory are available"):
        _import(path)
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        for key, array in transitions().items():
            file[key] = array
        del file["observations"]
        file.create_dataset("observations", (1 << 50, 3), "f8", chunks=(1024, 3))
    with pytest.raises(DataDamaged, match="its arrays take"):
        _import(tmp_path / "huge.h5")


def test_archives_are_what_they_say(tmp_path: Path) -> None:
    path = _npz(tmp_path, transitions())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def written(**changes: bytes) -> Path:
        with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, changes.get(name.removesuffix(".npy"), content))
        return tmp_path / "b.npz"

    huge = members["actions.npy"].replace(b"(9, 2)", b"(9, 999999999999)"[:0] + b"(9, 7)")
    with pytest.raises(DataDamaged, match=r"'actions' of type float32 and shape \(9, 7\) takes"):
        _import(written(actions=huge))
    deep = members["actions.npy"][:10] + b"(" * 60 + members["actions.npy"][70:]
    with pytest.raises(DataDamaged, match=r"b\.npz"):
        _import(written(actions=deep))
    with (
        zipfile.ZipFile(written(), "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("rewards.npy", members["rewards.npy"])
    with pytest.raises(DataDamaged, match="'rewards' is in it twice"):
        _import(tmp_path / "b.npz")
    content = bytearray(written().read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 8] |= 1  # The flag of an encrypted member.
    (tmp_path / "b.npz").write_bytes(content)
    with pytest.raises(DataDamaged, match="is encrypted"):
        _import(tmp_path / "b.npz")


def test_names_that_a_terminal_would_act_upon_are_refused(tmp_path: Path) -> None:
    arrays = transitions() | {"\x1b[2J": np.zeros(9)}
    for path in (_npz(tmp_path, arrays), write_hdf5(tmp_path / "a.h5", arrays)):
        with pytest.raises(DataDamaged, match="cannot name an array") as caught:
            _import(path)
        assert str(caught.value).isprintable()


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    for name in ("a.npz", "a.hdf5"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataDamaged, match="expected a regular file, found a pipe"):
            _import(tmp_path / name)
    os.mkfifo(tmp_path / "mine.json")
    (tmp_path / "mine.npz").touch()
    with pytest.raises(DataDamaged, match="expected a regular file"):
        load("mine", ["mine"], tmp_path)


def test_records_are_checked_before_use(tmp_path: Path) -> None:
    import_data(str(_npz(tmp_path, transitions())), "mine", tmp_path)
    record = tmp_path / "mine.json"
    text = record.read_text()
    changes = {
        "../../../evil": ('"fingerprint": "', '"fingerprint": "../../../evil'),
        "escape": ('"dataset": "mine', '"dataset": "mine\\u001b[2J'),
        "deep": ('"versions": {}', f'"versions": {"[" * 100_000}{"]" * 100_000}'),
        "source": ('"imported"', '"stolen"'),
    }
    for old, new in changes.values():
        assert old in text
        record.write_text(text.replace(old, new))
        with pytest.raises(DataDamaged, match=r"mine\.json"):
            load("mine", ["mine"], tmp_path)
    for name in ("../mine", "a/b", "x\x1b[2J"):
        with pytest.raises(ValueError, match="cannot name a dataset"):
            load(name, ["mine"], tmp_path)
