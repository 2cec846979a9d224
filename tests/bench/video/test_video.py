"""Videos: shapes and cameras by closed forms, files read back, episodes equal to the table's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import polars as pl
import pytest
from PIL import Image

from bench.cli import main
from bench.data import generate
from bench.drawing import Camera, Scene, encode, geom_shape, require_encoder
from bench.errors import BenchError
from bench.export import find_policy
from bench.simulation import SimulatorPool, make
from bench.storage import PlannedCell, RunRecord, read_run, write_run
from bench.video import Rollout, play, record, select_cells

TASK = "pointmaze-medium-navigate-singletask-task1-v0"
SHAPES = """
<mujoco><worldbody>
<geom name="box" type="box" size="0.5 1 2"/>
<geom name="sphere" type="sphere" size="1"/>
<geom name="capsule" type="capsule" size="0.5 1"/>
<geom name="cylinder" type="cylinder" size="0.5 2"/>
<geom name="ellipsoid" type="ellipsoid" size="1 2 3"/>
<geom name="floor" type="plane" size="1 1 1"/>
</worldbody></mujoco>
"""
ROUND = np.sin(2 * np.pi / 16) * 8 / np.pi  # area of a 16-gon over that of its circle


@pytest.mark.parametrize(
    ("name", "volume", "tolerance"),
    [
        ("box", 8.0, 1e-12),
        ("cylinder", np.pi * ROUND, 1e-12),
        ("sphere", 4 / 3 * np.pi, 0.08),
        ("capsule", np.pi * 0.25 * 2 + 4 / 3 * np.pi * 0.125, 0.08),
        ("ellipsoid", 4 / 3 * np.pi * 6, 0.08),
    ],
)
def test_shapes_are_closed_and_as_large_as_they_should_be(
    name: str, volume: float, tolerance: float
) -> None:
    model = mujoco.MjModel.from_xml_string(SHAPES)
    shape = geom_shape(model, model.geom(name).id)
    assert shape is not None
    vertices, faces = shape
    # Divergence theorem: a wrong orientation or a missing face would show.
    a, b, c, d = (vertices[faces[:, corner]] for corner in range(4))
    enclosed = sum(
        np.einsum("fi,fi->f", p, np.cross(q, r)).sum() / 6 for p, q, r in ((a, b, c), (a, c, d))
    )
    assert volume * (1 - tolerance) - 1e-12 <= enclosed <= volume + 1e-9
    assert geom_shape(model, model.geom("floor").id) is None


def test_a_large_mesh_is_reduced_and_keeps_its_place() -> None:
    environment = make("cube-single-play-singletask-task1-v0")
    values = vars(environment.unseeded.unwrapped).values()
    model = next(value for value in values if isinstance(value, mujoco.MjModel))
    geoms = [g for g in range(model.ngeom) if model.geom_type[g] == 7 and model.geom_group[g] == 2]
    for geom in geoms:
        mesh = model.geom_dataid[geom]
        shape = geom_shape(model, geom)
        assert shape is not None
        first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
        full = model.mesh_vert[first : first + count]
        extent = float(np.ptp(full, axis=0).max())
        assert np.abs(shape[0].min(axis=0) - full.min(axis=0)).max() < 0.06 * extent
        assert np.abs(shape[0].max(axis=0) - full.max(axis=0)).max() < 0.06 * extent
        assert len(shape[1]) <= max(1_000, 6 * 20 * 20)
    environment.close()


def test_a_camera_sees_what_it_looks_at_in_the_middle() -> None:
    target = np.array([1.0, 2.0, 0.5])
    camera = Camera.towards(target, 4.0, 90.0, -30.0)
    assert camera.axes.T @ camera.axes == pytest.approx(np.eye(3))
    pixels, depth = camera.project(target, 200)
    assert pixels == pytest.approx([100, 100])
    assert depth == pytest.approx(4.0)
    # Azimuth 90 looks along y: x is to the right, z goes up, and 22.5 degrees is the upper edge.
    right, _ = camera.project(target + np.array([0.1, 0, 0]), 200)
    assert right[0] > 100
    assert right[1] == pytest.approx(100)
    up = camera.axes[:, 1] * 4.0 * np.tan(np.radians(camera.fovy / 2))
    assert camera.project(target + up, 200)[0] == pytest.approx([100, 0])
    assert camera.project(camera.position + camera.axes[:, 2], 200)[1] < 0  # behind


def test_what_is_nearer_hides_what_is_farther() -> None:
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><geom type="box" size=".5 .5 .5" rgba="1 0 0 1"/>'
        '<geom type="sphere" size=".5" pos="0 2 0" rgba="0 0 1 1"/>'
        '<geom type="box" size="9 9 9" group="3"/></worldbody></mujoco>'
    )
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    scene = Scene(model, {})
    middle: dict[int, Any] = {}
    for azimuth in (90, -90):
        camera = Camera.towards(np.array([0, 1.0, 0]), 6, azimuth, -5)
        picture = scene.draw(data, camera, 64, np.zeros((0, 3)))
        assert picture.size == (64, 64)
        middle[azimuth] = picture.getpixel((32, 32))
    red, blue = middle[90], middle[-90]
    assert red[0] > 100 > red[2]
    assert blue[2] > 100 > blue[0]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_files_hold_every_frame(tmp_path: Path, kind: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (32, 24), colour) for colour in colours]
    encode(frames, tmp_path / f"x.{kind}", rate=10)
    video: Any
    with Image.open(tmp_path / f"x.{kind}") as video:
        assert video.n_frames == 3
        assert video.size == (32, 24)
        for index, colour in enumerate(colours):
            video.seek(index)
            found = np.array(video.convert("RGB").getpixel((16, 12)), dtype=int)
            assert np.abs(found - colour).max() < 8
            assert video.info["duration"] == pytest.approx(100)


def test_formats_that_cannot_be_written_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="gif, webp, png, mp4, got 'avi'"):
        require_encoder("avi")
    monkeypatch.setattr("bench.drawing._encode._ffmpeg", lambda: None)
    with pytest.raises(ValueError, match="pip install imageio-ffmpeg"):
        require_encoder("mp4")
    require_encoder("gif")


def rollout(success: bool = False) -> Rollout:
    actions = np.tile(np.array([[1.0, 0.0]], np.float32), (30, 1))
    return Rollout(TASK, 10, (5,), (actions,), (success,), (-30.0,))


def test_a_video_is_drawn_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "videos" / "x.gif"
    used = record(rollout(), [0], path, title="hello", renderer="software", size=96, most_frames=10)
    assert used == "software"
    video: Any
    with Image.open(path) as video:
        assert video.n_frames >= 10
        assert video.size[0] == 96
        # The end stays: its 20 frames may be one with a longer time.
        frames, seconds = [], 0.0
        for index in range(video.n_frames):
            video.seek(index)
            seconds += video.info["duration"] / 1000
            frames.append(np.asarray(video.convert("RGB"), dtype=int))
    assert seconds == pytest.approx((10 + 20) / 25, abs=0.05)
    # The point has moved and left a trail; the walls have not.
    assert (np.abs(frames[0] - frames[-1])[:96].sum(axis=-1) > 60).sum() > 10
    assert [entry.name for entry in path.parent.iterdir()] == ["x.gif"]


def test_a_replay_that_ends_otherwise_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"episode 0 of .* ends otherwise"):
        record(rollout(success=True), [0], tmp_path / "x.gif", title="", renderer="software")
    assert list(tmp_path.iterdir()) == []


def test_a_renderer_that_crashes_is_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], -11, "", "")

    monkeypatch.setattr("bench.video._render.subprocess.run", crash)
    with pytest.raises(BenchError, match=r"egl crashed \(SIGSEGV\); --renderer software"):
        record(rollout(), [0], tmp_path / "x.gif", title="", renderer="egl")


def test_without_a_working_driver_polygons_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def no_driver(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        if options["env"]["MUJOCO_GL"] == "osmesa":  # type: ignore[index]
            return subprocess.CompletedProcess(command, 1, "", "ImportError: no OSMesa")
        return run(command, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr("bench.video._render.ctypes.util.find_library", lambda _: "libOSMesa.so")
    monkeypatch.setattr("bench.video._render.subprocess.run", no_driver)
    assert record(rollout(), [0], tmp_path / "x.gif", title="", size=32) == "software"
    with pytest.raises(BenchError, match="osmesa failed: ImportError: no OSMesa"):
        record(rollout(), [0], tmp_path / "y.gif", title="", renderer="osmesa")


def test_the_drawing_process_imports_no_torch() -> None:
    program = "import sys, bench.drawing.__main__; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


DRAWN = """
import gymnasium
import numpy as np

class Drawn(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    metadata = {"render_modes": ["rgb_array"]}

    def __init__(self, render_mode=None):
        self.render_mode, self.place = render_mode, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 0.0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.place += float(action[0])
        return np.zeros(1, np.float32), 1.0, False, False, {}

    def render(self):
        assert self.render_mode == "rgb_array"
        image = np.zeros((20, 40, 3), np.uint8)
        image[:, : int(self.place)] = 255
        return image

class Blind(Drawn):
    metadata = {"render_modes": ["human"]}

class Broken(Drawn):
    def render(self):
        raise RuntimeError("no brush")

for kind in (Drawn, Blind, Broken):
    gymnasium.register(f"{kind.__name__}-v0", kind, max_episode_steps=50)
"""


def test_an_environment_without_mujoco_draws_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawn_by_hand.py").write_text(DRAWN)
    monkeypatch.chdir(tmp_path)

    def played(kind: str, returned: float = 10.0) -> Rollout:
        actions = np.ones((10, 1), np.float32)
        name = f"drawn_by_hand:{kind}-v0"
        return Rollout(name, 10, (5,), (actions,), (True,), (returned,), solved_at=1.0)

    path = tmp_path / "x.gif"
    assert record(played("Drawn"), [0], path, title="", size=100) == "the environment"
    video: Any
    with Image.open(path) as video:
        assert video.size == (200, 144)  # twice as wide as high, and the strip with the text
        white = []
        for index in (0, video.n_frames - 1):
            video.seek(index)
            bright = np.asarray(video.convert("L"))[50] > 128
            white.append(bright.mean())
    assert white == pytest.approx([0.0, 10 / 40], abs=0.02)
    with pytest.raises(BenchError, match=r"rgb_array is not among its render_modes \['human'\]"):
        record(played("Blind"), [0], path, title="")
    with pytest.raises(BenchError, match=r"render.* of .*Broken-v0 failed: RuntimeError: no brush"):
        record(played("Broken"), [0], path, title="")
    # Where success is a return, the return is what a replay must have again.
    with pytest.raises(BenchError, match="ends otherwise"):
        record(played("Drawn", 11.0), [0], path, title="")


def test_tasks_and_variants_are_named_as_a_shell_takes_them(tmp_path: Path) -> None:
    variants = ["kl-budget=0.1, steps=20", "kl-budget=0.4, steps=20"]
    cells = [
        PlannedCell("own", "own", "myarm:MyArm-v0", "trqam", 0, {"offline": 20}, "pack", variant)
        for variant in variants
    ]
    packs = {"pack": {"settings": {}, "seeds": [0]}}
    settings = {"protocol": {"episodes": 2}, "packs": packs}
    write_run(tmp_path, RunRecord(["bench"], settings, {}, cells))
    for task in ("1", "MyArm-v0", "myarm:MyArm-v0"):
        found = select_cells(tmp_path, task=task, variant=variants[1])
        assert [selected.cell for selected in found] == cells[1:]
    assert "/" not in found[0].file_name
    assert ":" not in found[0].file_name
    quoted = f"'{variants[0]}' or '{variants[1]}'"
    with pytest.raises(ValueError, match=f"several policies fit .*--variant {quoted}$"):
        find_policy(tmp_path, task="1")
    with pytest.raises(ValueError, match=f"unknown variant.*'{variants[0]}'"):
        select_cells(tmp_path, variant="kl-budget=0.2, steps=20")
    for given in ("2", "MyArm-v1"):
        with pytest.raises(ValueError, match=f"no task {given}; its tasks are myarm:MyArm-v0"):
            select_cells(tmp_path, task=given)
        with pytest.raises(ValueError, match=r"no policy in .*--task myarm:MyArm-v0"):
            find_policy(tmp_path, task=given)


@pytest.mark.slow
def test_the_episodes_are_those_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("pointmaze-medium-navigate-5k-v0", tmp_path / "data", transitions=5_000, processes=1)
    run = tmp_path / "run"
    command = [
        "offline", "--preset", "smoke", "--agent", "trqam", "fql", "--out", str(run),
        "--data-dir", str(tmp_path / "data"), "--processes", "1", "--seeds", "2",
    ]  # fmt: skip
    assert main(command) == 0
    tables = pl.concat(map(pl.read_parquet, run.glob("packs/*/evaluations.parquet")))
    with SimulatorPool(0) as pool:
        for agent in ("trqam", "bc"):
            for selected in select_cells(run, agent=agent, seed=1):
                played = play(selected, pool)
                row = tables.filter(
                    agent=agent, seed=1, task=selected.cell.task, step=played.step
                ).row(0, named=True)
                assert np.mean(played.returns) == pytest.approx(row["return_mean"], abs=1e-9)
                assert played.solved == row["successes"]
                assert len(played.actions) == row["episodes"] == 2
    assert {c.cell.agent for c in select_cells(run)} == {"trqam", "fql"}
    assert {c.cell.seed for c in select_cells(run)} == {0}
    given = ["video", str(run), "--agent", "trqam", "--task", "2", "--size", "64"]
    assert main([*given, "--episodes", "1", "--most-frames", "4"]) == 0
    printed = capsys.readouterr().out
    (file,) = (run / "videos").iterdir()
    assert file.name == "pointmaze-medium-navigate-singletask-task2--trqam--seed-0.gif"
    assert str(file) in printed
    for more, expected in (
        (["--episodes", "2"], "from 0 to 1"),
        (["--task", "7"], "no task 7"),
        (["--agent", "trqm"], "perhaps you meant trqam"),
        (["--seed", "5"], "unknown seed '5'"),
        (["--variant", "kl-budget=1"], "has no variants; leave --variant out"),
        (["--size", "0"], "--size must lie between"),
        (["--rate", "0"], "--rate must lie between"),
    ):
        assert main(["video", str(run), *more]) == 2
        assert expected in capsys.readouterr().err
    assert read_run(run).cells  # nothing was touched
