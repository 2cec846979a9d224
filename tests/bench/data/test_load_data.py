"""Observations of every origin keep their leaves; the same episodes come out of every layout."""

import builtins
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import bench
from bench.data import DataDamaged, DataMissing, TaskData, load_data
from bench.training.training_data import TrainingData
from qlearn import ChunkSampler, LeafSpec, PrefetchingSampler, RandomStreams

from . import layouts

SPEC = {
    "image": LeafSpec((16, 16, 3), torch.uint8),
    "robot/pos": LeafSpec((2,), torch.float32),
    "robot/step": LeafSpec((1,), torch.int64),
}
Episode = dict[str, Any]


def episodes() -> list[Episode]:
    """Those of `layouts`, seen by a camera: the brightness of an image tells row and episode."""
    found = []
    for number, episode in enumerate(layouts.episodes()):
        rows = len(episode["observations"])
        bright = (20 * np.arange(rows) + 100 * (number == 1) + 7).astype(np.uint8)
        image = np.broadcast_to(bright[:, None, None, None], (rows, 16, 16, 3)).copy()
        seen = {
            "image": image,
            "robot": {"pos": episode["observations"][:, :2], "step": np.arange(rows)},
        }
        found.append({**episode, "observations": seen})
    return found


def cut(tree: Any, rows: slice) -> Any:
    return {k: cut(v, rows) for k, v in tree.items()} if isinstance(tree, dict) else tree[rows]


def joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], dict):
        return {key: joined([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)


def transitions() -> Episode:
    found = episodes()
    return {
        **{key: value for key, value in layouts.transitions().items() if "obs" not in key},
        "observations": joined([cut(e["observations"], slice(None, -1)) for e in found]),
        "next_observations": joined([cut(e["observations"], slice(1, None)) for e in found]),
    }


def states() -> Episode:
    seen = joined([e["observations"] for e in episodes()])
    return {**layouts.states(), "observations": seen}


def flat(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    names = {key: f"{prefix}/{key}".lstrip("/") for key in tree}
    return {k: v for key, name in names.items() for k, v in flat(tree[key], name).items()}


def npz(tree: Episode) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "data.npz", **flat(tree))
        return folder / "data.npz"

    return write


def minari(folder: Path) -> Path:
    tree = {f"episode_{i}": episode for i, episode in enumerate(episodes())}
    return layouts.write_hdf5(folder / "minari.hdf5", tree)


def robomimic(folder: Path) -> Path:
    demos = {
        f"demo_{i}": {
            "obs": cut(episode["observations"], slice(None, -1)),
            "next_obs": cut(episode["observations"], slice(1, None)),
            "actions": episode["actions"],
            "rewards": episode["rewards"],
            "dones": episode["terminations"].astype(np.int64),
        }
        for i, episode in enumerate(episodes())
    }
    return layouts.write_hdf5(folder / "robomimic.hdf5", {"data": demos})


SOURCES: dict[str, Callable[[Path], Any]] = {
    "transitions": lambda folder: transitions(),
    "states": lambda folder: states(),
    "tensors": lambda folder: {**states(), "actions": torch.from_numpy(states()["actions"])},
    "episodes": lambda folder: episodes(),
    "npz_transitions": npz(transitions()),
    "npz_states": npz(states()),
    "hdf5": lambda folder: layouts.write_hdf5(folder / "d4rl.hdf5", transitions()),
    "hdf5_states": lambda folder: layouts.write_hdf5(folder / "states.h5", states()),
    "minari": minari,
    "robomimic": robomimic,
}


def check(data: TaskData, *, image: Callable[[np.ndarray, np.ndarray], None] | None = None) -> None:
    expected = flat(joined([e["observations"] for e in episodes()]))
    assert list(data.observations) == sorted(expected) == list(SPEC)
    for name, leaf in data.observations.items():
        if name == "image" and image is not None:
            image(leaf, expected[name])
            continue
        wanted = expected[name] if expected[name].ndim > 1 else expected[name][:, None]
        assert leaf.dtype == wanted.dtype
        np.testing.assert_array_equal(leaf, wanted)
    wanted = layouts.states()
    kept = ~data.terminals
    np.testing.assert_array_equal(data.terminals, wanted["terminals"])
    np.testing.assert_array_equal(data.actions[kept], wanted["actions"][kept])
    np.testing.assert_array_equal(data.rewards[0, kept], wanted["rewards"][kept])
    np.testing.assert_array_equal(data.masks[0], wanted["masks"])


@pytest.mark.parametrize("name", SOURCES)
def test_every_layout_holds_the_same_episodes(name: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    data = bench.load_data(source)
    check(data)
    stored = load_data(source, store=tmp_path / "stored")
    check(stored)
    assert not any(isinstance(leaf, np.memmap) for leaf in stored.observations.values())
    assert load_data(tmp_path / "stored").fingerprint == stored.fingerprint
    only = load_data(source, observation_keys=["robot/pos"])
    assert list(only.observations) == ["robot/pos"]
    np.testing.assert_array_equal(only.observations["robot/pos"], data.observations["robot/pos"])


def test_a_stored_folder_is_mapped_and_read_ahead(tmp_path: Path) -> None:
    memory = load_data(episodes(), store=tmp_path / "data")
    mapped = load_data(tmp_path / "data", mapped=True)
    check(mapped)
    assert isinstance(mapped.observations["image"], np.memmap)
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert {"data.json", "observations.robot%2Fpos.npy", "actions.npy"} <= names
    device = torch.device("cpu")
    resident, streamed = (TrainingData.of(d, device, standardise=True) for d in (memory, mapped))
    assert resident.episodes.spec == streamed.episodes.spec == SPEC
    assert (resident.streamed, streamed.streamed) == (False, True)
    assert "on the disk, read ahead" in streamed.describe()
    sampler = ChunkSampler(resident.episodes, 2, 0.9, tasks=[0])
    with PrefetchingSampler(streamed.episodes, 2, 0.9, tasks=[0]) as ahead:
        first, second = (s.sample(RandomStreams([3]), 16) for s in (sampler, ahead))
    for name in SPEC:
        assert torch.equal(first.observations[name], second.observations[name])
    assert torch.equal(first.actions, second.actions)
    with pytest.raises(ValueError, match="exists; load it by its own path"):
        load_data(episodes(), store=tmp_path / "data")
    (tmp_path / "data" / "rewards.npy").unlink()
    with pytest.raises(DataMissing, match=r"rewards\.npy is missing"):
        load_data(tmp_path / "data")
    record = json.loads((tmp_path / "data" / "data.json").read_text())
    (tmp_path / "data" / "data.json").write_text(json.dumps({**record, "leaves": ["../x"]}))
    with pytest.raises(DataDamaged, match="not a complete record"):
        load_data(tmp_path / "data")


def test_one_array_stays_one(tmp_path: Path) -> None:
    vectors = load_data(layouts.transitions())
    assert vectors.one_vector
    np.testing.assert_array_equal(vectors.observations, layouts.states()["observations"])
    again = load_data(layouts.npz_states(tmp_path))
    np.testing.assert_array_equal(again.observations, vectors.observations)
    images = [{**e, "observations": e["observations"]["image"]} for e in episodes()]
    data = load_data(images, store=tmp_path / "images")
    assert data.observations.shape == (12, 16, 16, 3)
    assert data.observations.dtype == np.uint8
    assert not data.one_vector
    assert TrainingData.of(data, torch.device("cpu"), standardise=True).normalizer.passes
    assert load_data(data) is data


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def film(path: Path, images: np.ndarray, fps: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.height, stream.width = images.shape[1:3]
        stream.bit_rate = 4_000_000
        for image in images:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def lerobot(folder: Path, kind: str) -> Path:
    """`stored`: images in the tables; `v2.1`: a video for each episode; `v3.0`: one for all."""
    place = folder / kind
    rows: list[Episode] = []
    filmed: list[np.ndarray] = []
    described: list[Episode] = []
    for number, (episode, end) in enumerate(zip(episodes(), layouts.TERMINATED, strict=True)):
        steps = len(episode["actions"])
        frames = steps + (not end)
        seen = episode["observations"]
        for frame in range(frames):
            last = frame == frames - 1
            row = {
                "observation.state": seen["robot"]["pos"][frame].tolist(),
                "action": (episode["actions"][frame] if frame < steps else np.zeros(2)).tolist(),
                "next.reward": float(episode["rewards"][frame]) if frame < steps else 0.0,
                "next.success": end and last,
                "episode_index": number,
                "frame_index": frame,
            }
            if kind == "stored":
                row["observation.images.top"] = {"bytes": png(seen["image"][frame]), "path": None}
            rows.append(row)
        where = f"videos/{'observation.images.top'}"
        described.append(
            {
                "episode_index": number,
                f"{where}/chunk_index": 0,
                f"{where}/file_index": 0,
                f"{where}/from_timestamp": sum(map(len, filmed)) / 10,
            }
        )
        filmed.append(seen["image"][:frames])
        if kind == "v2.1":
            name = f"videos/chunk-000/observation.images.top/episode_{number:06d}.mp4"
            film(place / name, filmed[-1])
    if kind == "v3.0":
        film(place / "videos/observation.images.top/chunk-000/file-000.mp4", joined(filmed))
        (place / "meta/episodes/chunk-000").mkdir(parents=True)
        table = pl.DataFrame(described)
        table.write_parquet(place / "meta/episodes/chunk-000/file-000.parquet")
    (place / "data/chunk-000").mkdir(parents=True)
    (place / "meta").mkdir(exist_ok=True)
    vector = pl.List(pl.Float32)
    types = {"observation.state": vector, "action": vector}
    pl.DataFrame(rows, schema_overrides=types).write_parquet(place / "data/chunk-000/f.parquet")
    template = {
        "v2.1": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        "v3.0": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "stored": None,
    }[kind]
    camera = {"dtype": "image" if kind == "stored" else "video", "shape": [3, 16, 16]}
    info = {
        "codebase_version": "v3.0" if kind == "stored" else kind,
        "total_episodes": 3,
        "total_frames": len(rows),
        "fps": 10,
        "video_path": template,
        "features": {
            "observation.images.top": {**camera, "names": ["channels", "height", "width"]},
            "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        },
    }
    (place / "meta" / "info.json").write_text(json.dumps(info))
    return place


@pytest.mark.parametrize("kind", ["stored", "v2.1", "v3.0"])
def test_cameras_of_lerobot_are_read(kind: str, tmp_path: Path) -> None:
    data = load_data(lerobot(tmp_path, kind), store=tmp_path / "store")
    renamed = {
        "image": data.observations["observation.images.top"],
        "robot/pos": data.observations["observation.state"],
    }
    assert len(renamed) == len(data.observations)
    expected = flat(joined([e["observations"] for e in episodes()]))
    # The terminal state of the second episode is no frame: its last frame stands there.
    rows = np.arange(12)
    rows[7] = 6
    np.testing.assert_array_equal(renamed["robot/pos"], expected["robot/pos"][rows])
    assert renamed["image"].dtype == np.uint8
    off = np.abs(renamed["image"].astype(int) - expected["image"][rows])
    assert off.max() <= (0 if kind == "stored" else 6)
    np.testing.assert_array_equal(data.masks[0], layouts.states()["masks"])
    state = load_data(lerobot(tmp_path / "b", kind), observation_keys=["observation.state"])
    assert list(state.observations) == ["observation.state"]


def test_a_video_without_its_decoder_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = lerobot(tmp_path, "v3.0"), builtins.__import__

    def without_av(name: str, *rest: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ValueError, match=r"install trqam-bench\[videos\]"):
        load_data(folder)
    assert load_data(folder, observation_keys=["observation.state"]).transitions == 9


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{video_key.__class__}.mp4", "as the place of videos"),
        ("../{video_key}.mp4", "lies outside of the dataset"),
        ("videos/{video_key}/none.mp4", "No such file"),
    ],
)
def test_a_description_names_files_of_its_dataset_only(
    path: str, message: str, tmp_path: Path
) -> None:
    folder = lerobot(tmp_path, "v3.0")
    info = json.loads((folder / "meta" / "info.json").read_text())
    (folder / "meta" / "info.json").write_text(json.dumps({**info, "video_path": path}))
    with pytest.raises((DataDamaged, OSError), match=message):
        load_data(folder)


def test_what_is_missing_or_odd_is_named(tmp_path: Path) -> None:
    whole = episodes()
    silent = [{k: v for k, v in e.items() if k != "rewards"} for e in whole]
    with pytest.raises(ValueError, match=r"episode 0: there are no rewards.*rewards='success'"):
        load_data(silent)
    told = load_data(silent, rewards="success")
    assert told.rewards.sum() == 1.0
    assert told.rewards[0, ~told.masks[0]].tolist() == [1.0]
    seen = whole[0]["observations"]
    short = {**whole[0], "observations": {**seen, "robot": {"pos": np.zeros((3, 2))}}}
    with pytest.raises(DataDamaged, match="lengths differ: 'image' 5, 'robot/pos' 3"):
        load_data([short])
    other = {**whole[1], "observations": {**whole[1]["observations"], "image": np.zeros((3, 2))}}
    for store in (None, tmp_path / "never"):
        with pytest.raises(DataDamaged, match=r"image.*rows of float32"):
            load_data([whole[0], other], store=store)
    assert list(tmp_path.iterdir()) == []
    wild = [{**e, "actions": 3 * e["actions"]} for e in whole]
    with pytest.raises(DataDamaged, match=r"lies outside \[-1, 1\]"):
        load_data(wild)
    kept = load_data(wild, action_range="as_stored")
    np.testing.assert_array_equal(kept.actions[:4], wild[0]["actions"])
    scaled = load_data(wild, action_range=(-3.0, 3.0))
    np.testing.assert_allclose(scaled.actions[:4], whole[0]["actions"], rtol=1e-6)
    with pytest.raises(ValueError, match="expected two bounds or 'as_stored'"):
        load_data(whole, action_range="stored")
    with pytest.raises(DataMissing, match="no file or folder demos, nor a dataset of that name"):
        load_data("demos", data_dir=tmp_path)
    for wrong, message in (([], "empty list"), (3, "data is int"), ([1], "data is list")):
        with pytest.raises(ValueError, match=message):
            load_data(wrong)
    nan = episodes()
    nan[1]["observations"]["robot"]["pos"][1, 0] = np.nan
    with pytest.raises(DataDamaged, match=r"'episode_1/observations/robot/pos', row 1.*not finite"):
        load_data(nan)
