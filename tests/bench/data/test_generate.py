import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import DataRecord, generate, inspect_file, read_npz
from bench.data._rollouts import roll_out
from bench.errors import RunLockedError
from bench.storage import RunLock

from .conftest import FAMILIES, short

MAZE = "pointmaze-medium-navigate-v0"


def _contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("dataset", FAMILIES)
def test_files_have_the_published_layout(dataset: str, tiny_dir: Path) -> None:
    buttons = {"scene-play-v0": 2, "puzzle-3x3-play-v0": 9}.get(dataset)
    for suffix, episodes in ((".npz", 3), ("-val.npz", 1)):
        path = tiny_dir / f"{dataset}{suffix}"
        assert inspect_file(path).episodes == episodes
        arrays = read_npz(path)
        rows = 41 * episodes
        expected = {"observations", "actions", "terminals", "qpos", "qvel"}
        assert set(arrays) == expected | ({"button_states"} if buttons else set())
        for key in expected - {"terminals"}:
            assert (arrays[key].dtype, len(arrays[key])) == (np.float32, rows)
        assert arrays["terminals"].dtype == bool
        np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]) % 41, 40)
        if buttons:
            assert arrays["button_states"].dtype == np.int64
            assert arrays["button_states"].shape == (rows, buttons)


@pytest.mark.parametrize("dataset", FAMILIES)
def test_rows_hold_the_state_before_the_action(dataset: str, tiny_dir: Path) -> None:
    arrays = read_npz(tiny_dir / f"{dataset}.npz")
    observations, positions = arrays["observations"], arrays["qpos"]
    if dataset == MAZE:
        np.testing.assert_array_equal(observations, positions)
    else:
        # The first six entries of an observation are the joints of the arm, as those of qpos.
        np.testing.assert_array_equal(observations[:, :6], positions[:, :6])


def test_the_oracle_moves_cubes_and_the_point_reaches_goals(tmp_path: Path) -> None:
    generate(MAZE, tmp_path, transitions=300, recipe=short(MAZE, 301), processes=1)
    arrays = read_npz(tmp_path / f"{MAZE}.npz")
    steps = np.linalg.norm(np.diff(arrays["qpos"], axis=0), axis=1)
    # A point moves 0.2 per unit of action; noise of 0.5 about a unit vector, clipped to [-1, 1].
    assert 0.1 < steps.mean() < 0.25
    cells = {tuple(cell) for cell in np.round(arrays["qpos"] / 4).astype(int)}
    assert len(cells) >= 6


def test_nothing_depends_on_processes_or_size(tmp_path: Path) -> None:
    recipe = short(MAZE)
    generate(MAZE, tmp_path / "one", transitions=480, recipe=recipe, processes=1)
    generate(MAZE, tmp_path / "two", transitions=480, recipe=recipe, processes=2)
    assert _contents(tmp_path / "one") == _contents(tmp_path / "two")
    generate(MAZE, tmp_path / "large", transitions=920, recipe=recipe, processes=1)
    for suffix in (".npz", "-val.npz"):
        small = read_npz(tmp_path / "one" / f"{MAZE}{suffix}")
        large = read_npz(tmp_path / "large" / f"{MAZE}{suffix}")
        for key, array in small.items():
            np.testing.assert_array_equal(array, large[key][: len(array)])


@pytest.mark.parametrize("dataset", FAMILIES)
def test_an_episode_is_a_function_of_seed_split_and_number(dataset: str, tiny_dir: Path) -> None:
    collector = roll_out(f"{dataset.rsplit('-', 2)[0]}-v0", short(dataset), Path())
    alone = collector.episode(0, "train", 2)
    stored = read_npz(tiny_dir / f"{dataset}.npz")
    for key, array in alone.items():
        np.testing.assert_array_equal(array, stored[key][82:])
    for other in ((1, "train", 2), (0, "val", 2), (0, "train", 1)):
        assert not np.array_equal(collector.episode(*other)["actions"], alone["actions"])


def test_the_global_generator_is_left_alone(tmp_path: Path) -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generate(MAZE, tmp_path, transitions=40, recipe=short(MAZE), processes=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_an_interrupted_call_is_continued(tmp_path: Path) -> None:
    recipe = short(MAZE)
    generate(MAZE, tmp_path / "whole", transitions=920, recipe=recipe, processes=1)

    def interrupt(done: int, total: int) -> None:
        assert total == 40 * (23 + 2)
        if done >= 400:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(
            MAZE, tmp_path / "cut", transitions=920, recipe=recipe, processes=1, progress=interrupt
        )
    assert not (tmp_path / "cut" / f"{MAZE}.npz").exists()
    calls: list[tuple[int, int]] = []
    generate(
        MAZE,
        tmp_path / "cut",
        transitions=920,
        recipe=recipe,
        processes=1,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[0] == (400, 1000)
    assert calls[-1] == (1000, 1000)
    assert _contents(tmp_path / "cut") == _contents(tmp_path / "whole")


def test_other_settings_do_not_take_over_parts(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    recipe = short(MAZE)
    with pytest.raises(KeyboardInterrupt):
        generate(MAZE, tmp_path, transitions=480, recipe=recipe, processes=1, progress=interrupt)
    first: list[int] = []
    generate(
        MAZE,
        tmp_path,
        seed=1,
        transitions=480,
        recipe=recipe,
        processes=1,
        progress=lambda done, total: first.append(done),
    )
    assert first[0] == 0


def test_large_sets_are_shards_with_episodes_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_names", "_parts"):
        monkeypatch.setattr(f"bench.data.{module}.SHARD_TRANSITIONS", 400)
    recipe = short(MAZE)
    name = "pointmaze-medium-navigate-1k-v0"
    paths = generate(name, tmp_path, recipe=recipe, processes=1)
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        f"{name}/{MAZE}-00{i}.npz" for i in range(3)
    ]
    assert [inspect_file(p).episodes for p in paths] == [10, 10, 5]
    generate(MAZE, tmp_path, transitions=1000, recipe=recipe, processes=1)
    whole = read_npz(tmp_path / f"{MAZE}.npz")
    for key, array in whole.items():
        shards = np.concatenate([read_npz(p)[key] for p in paths])
        np.testing.assert_array_equal(shards, array)
    record = DataRecord.read(tmp_path / f"{name}.json")
    assert record is not None
    assert len(record.files) == 6


def test_the_record_says_how_the_data_were_made(tiny_dir: Path) -> None:
    record = DataRecord.read(tiny_dir / "scene-play-v0.json")
    assert record is not None
    assert record.source == "generated"
    assert record.recipe["seed"] == 0
    assert record.recipe["rows"] == 41
    assert record.versions["mujoco"].startswith("3.")
    entry = record.files["scene-play-v0.npz"]
    assert entry == inspect_file(tiny_dir / "scene-play-v0.npz")


def test_existing_data_are_kept_or_replaced_on_request(tmp_path: Path) -> None:
    recipe = short(MAZE)
    generate(MAZE, tmp_path, transitions=80, recipe=recipe, processes=1)
    path = tmp_path / f"{MAZE}.npz"
    stamp = path.stat().st_mtime_ns
    generate(MAZE, tmp_path, transitions=80, recipe=recipe, processes=1)
    assert path.stat().st_mtime_ns == stamp
    for change in ({"seed": 1}, {"transitions": 120}, {"recipe": replace(recipe, noise=0.1)}):
        settings = {"transitions": 80, "recipe": recipe, "processes": 1, **change}
        with pytest.raises(ValueError, match="is not what was requested"):
            generate(MAZE, tmp_path, **settings)
    assert path.stat().st_mtime_ns == stamp
    before = path.read_bytes()
    generate(MAZE, tmp_path, seed=1, transitions=80, recipe=recipe, processes=1, overwrite=True)
    assert path.read_bytes() != before


def test_foreign_files_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / f"{MAZE}.npz"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="nothing is recorded"):
        generate(MAZE, tmp_path, processes=1)
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize("settings", [{"processes": 0}, {"transitions": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        generate(MAZE, tmp_path, **settings, recipe=short(MAZE))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dataset", "transitions", "message"),
    [
        ("scene-play-20k-v0", 40, "stands for 20,000 .*, such as scene-play-1k-v0"),
        ("cube-single-play-v0", 20_000, "stands for 1,000,000 .*as cube-single-play-20k-v0"),
        ("cube-triple-play-v0", 1_000_000, "stands for 3,000,000 .*as cube-triple-play-1m-v0"),
    ],
)
def test_a_name_does_not_lie_about_its_size(
    tmp_path: Path, dataset: str, transitions: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate(dataset, tmp_path, transitions=transitions)
    assert not list(tmp_path.iterdir())


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    settings = {"transitions": 480, "recipe": short(MAZE), "processes": 1}
    with pytest.raises(KeyboardInterrupt):
        generate(MAZE, tmp_path, **settings, progress=interrupt)
    (parts,) = tmp_path.glob(".*.parts")
    with RunLock(parts), pytest.raises(RunLockedError, match="in use by process"):
        generate(MAZE, tmp_path, **settings)


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
from bench.data import RECIPES, generate
if __name__ == "__main__":
    recipe = replace(RECIPES["pointmaze-medium-navigate"], rows=401)
    generate("pointmaze-medium-navigate-v0", Path(sys.argv[1]), transitions=40_000,
             recipe=recipe, processes=int(sys.argv[2]),
             progress=lambda done, total: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_generation_is_continued_and_leaves_no_process(tmp_path: Path) -> None:
    script = tmp_path / "make.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(folder: str, processes: int) -> subprocess.Popen[str]:
        command = [sys.executable, str(script), str(tmp_path / folder), str(processes)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )

    process = start("killed", 2)
    assert process.stdout is not None
    while int(process.stdout.readline()) < 4_000:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _session_members(process.pid):
        time.sleep(0.1)
    assert not _session_members(process.pid)

    again = start("killed", 1)
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert int(output.split()[0]) >= 2_000
    whole = start("whole", 1)
    whole.communicate(timeout=60)
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")


def _session_members(session: int) -> list[int]:
    """Processes of a session that are alive, from /proc."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                members.append(int(entry.name))
    return members


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = tmp_path / "full.py"
    script.write_text(
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n" + SCRIPT
    )
    folder = tmp_path / "d"
    result = subprocess.run(
        [sys.executable, str(script), str(folder), "1"], capture_output=True, text=True
    )
    assert result.returncode != 0
    assert "File too large" in result.stderr
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert left == ["lock"]


def test_records_are_plain_json(tiny_dir: Path) -> None:
    for path in tiny_dir.glob("*.json"):
        assert json.loads(path.read_text())["format"] == 1
