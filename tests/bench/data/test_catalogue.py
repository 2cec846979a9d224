import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import DataMissing, catalogue, import_data, read_npz, summarise, verify

MAZE = "pointmaze-medium-navigate-v0"


@pytest.fixture
def copy(tiny_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_dir, folder)
    return folder


def test_the_catalogue_lists_what_the_suites_need_and_what_is_there(copy: Path) -> None:
    (copy / "settings.json").write_text("{}")
    entries = {entry.dataset: entry for entry in catalogue(copy)}
    assert {"cube-triple-play-10m-v0", "antmaze-large-navigate-v0", MAZE} <= set(entries)
    there = entries[MAZE]
    assert (there.present, there.expected, there.source) == (1, 1, "generated")
    assert there.transitions == 120
    assert there.bytes == sum(p.stat().st_size for p in copy.glob(f"{MAZE[:-3]}*.npz"))
    assert not there.problem
    absent = entries["antmaze-large-navigate-v0"]
    assert (absent.present, absent.source) == (0, "")
    assert absent.ways == ("generate (needs expert)", "get")
    assert entries["cube-triple-play-v0"].ways == ("generate", "get")
    assert entries["antsoccer-arena-navigate-v0"].ways == ("get",)


def test_the_catalogue_sees_a_truncated_file_and_a_bad_record(copy: Path) -> None:
    path = copy / f"{MAZE}.npz"
    path.write_bytes(path.read_bytes()[:-1])
    (copy / "scene-play-v0.json").write_text("{")
    entries = {entry.dataset: entry for entry in catalogue(copy)}
    assert "length differs" in entries[MAZE].problem
    assert "not a JSON record" in entries["scene-play-v0"].problem


def test_verify_finds_what_changed(copy: Path) -> None:
    assert verify(MAZE, copy) == []
    path = copy / f"{MAZE}.npz"
    arrays = {key: array.copy() for key, array in read_npz(path).items()}
    arrays["actions"][3, 1] = 0.125
    np.savez(path, **arrays)
    (problem,) = verify(MAZE, copy)
    assert f"{path}: the contents differ" in problem
    arrays["actions"][3, 1] = 7
    np.savez(path, **arrays)
    (problem,) = verify(MAZE, copy)
    assert "'actions', row 3, column 1: 7.0 lies outside" in problem


def test_verify_records_what_it_read(copy: Path) -> None:
    (copy / f"{MAZE}.json").unlink()
    calls: list[tuple[int, int]] = []
    assert verify(MAZE, copy, lambda done, total: calls.append((done, total))) == []
    assert (copy / f"{MAZE}.json").exists()
    assert calls[-1][0] == calls[-1][1] > 0
    (copy / f"{MAZE}-val.npz").unlink()
    assert verify(MAZE, copy) == []
    (copy / f"{MAZE}.npz").unlink()
    with pytest.raises(DataMissing):
        verify(MAZE, copy)


def test_walkers_need_the_expert_of_their_body(tmp_path: Path) -> None:
    (tmp_path / "experts" / "ant").mkdir(parents=True)
    ways = {entry.dataset: entry.ways[0] for entry in catalogue(tmp_path)}
    assert ways["antmaze-large-navigate-v0"] == "generate"
    assert ways["humanoidmaze-large-navigate-v0"] == "generate (needs expert)"


def test_a_suite_with_other_data_hides_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.suites import SUITES, CustomTask, custom_suite

    own = custom_suite("arm", CustomTask("Arm-v0", "arm.npz"), transitions=10, chunk_length=1)
    foreign = replace(SUITES["quick"].domains[0], name="D4RL/door", transitions=7_000)
    monkeypatch.setitem(SUITES, "own", own)
    monkeypatch.setitem(SUITES, "foreign", replace(own, domains=(foreign,)))
    entries = {entry.dataset: entry for entry in catalogue(tmp_path)}
    assert entries["D4RL/door-7k-v0"].ways == ("import",)
    assert MAZE in entries


def test_imported_data_are_listed_and_verified(copy: Path) -> None:
    states = np.arange(12.0).reshape(6, 2)
    np.savez(copy / "raw.npz", observations=states, actions=0 * states, terminals=[0, 0, 1] * 2)
    path = import_data(str(copy / "raw.npz"), "flights", copy, layout="ogbench").path
    (copy / "checksums.json").write_text("{}")
    entries = {entry.dataset: entry for entry in catalogue(copy)}
    found = entries["flights"]
    assert (found.present, found.expected, found.source) == (1, 1, "imported")
    assert (found.transitions, found.ways, found.problem) == (4, ("import",), "")
    assert {"raw", "checksums"}.isdisjoint(entries)
    assert verify("flights", copy) == []
    arrays = {key: array.copy() for key, array in read_npz(path).items()}
    np.savez(path, **(arrays | {"actions": arrays["actions"] + 0.5}))
    (problem,) = verify("flights", copy)
    assert f"{path}: the contents differ" in problem
    path.unlink()
    with pytest.raises(DataMissing, match="`bench data import FILE flights` restores it"):
        verify("flights", copy)


@pytest.mark.parametrize("name", ["foo-play-v0", "pointmaze-medium-navigate-4k-v0"])
def test_only_import_brings_imported_data_back_whatever_their_name(
    name: str, tmp_path: Path
) -> None:
    row = np.zeros((4004, 2), np.float32)
    ends = np.arange(1, 4005) % 1001 == 0
    np.savez(tmp_path / "raw.npz", observations=row, actions=row, terminals=ends)
    import_data(str(tmp_path / "raw.npz"), name, tmp_path)
    entries = {entry.dataset: entry for entry in catalogue(tmp_path)}
    assert (entries[name].source, entries[name].ways) == ("imported", ("import",))
    assert entries[MAZE].ways == ("generate", "get")


def test_a_summary_counts_by_hand(copy: Path) -> None:
    path = copy / f"{MAZE}.npz"
    arrays = {key: array.copy() for key, array in read_npz(path).items()}
    arrays["qpos"][:] = 0  # The start of task 1 is the goal of no task but task 5, (1, 1).
    arrays["qpos"][41:] = 100
    np.savez(path, **arrays)
    summary = summarise(path, MAZE)
    assert (summary.episodes, summary.lengths) == (3, (40, 40.0, 40))
    assert summary.arrays["qpos"].shape == (123, 2)
    assert (summary.arrays["qpos"].low, summary.arrays["qpos"].high) == (0.0, 100.0)
    assert [task.rows for task in summary.tasks] == pytest.approx([0, 0, 0, 0, 1 / 3])
    assert [task.episodes for task in summary.tasks] == pytest.approx([0, 0, 0, 0, 1 / 3])
    assert summary.tasks[4].mean_reward == pytest.approx(-2 / 3)
    # Two places, at opposite corners; y points up.
    lines = [i for i, line in enumerate(summary.picture) if line.strip()]
    assert lines == [0, len(summary.picture) - 1]
    assert summary.picture[-1][0] != " "
    assert summary.picture[0][-1] != " "


def test_data_without_known_tasks_are_summarised_too(copy: Path) -> None:
    summary = summarise(copy / "scene-play-v0.npz", "mine")
    assert summary.tasks == ()
    assert summary.picture == ()
