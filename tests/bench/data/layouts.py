"""Small files of every layout that import knows, all of the same three episodes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl

LENGTHS = (4, 2, 3)
TERMINATED = (False, True, False)

Arrays = dict[str, Any]


def episodes() -> list[Arrays]:
    """States (L + 1, 3), actions and rewards in float32, flags of the two kinds of ends."""
    generator = np.random.default_rng(0)
    return [
        {
            "observations": generator.normal(size=(length + 1, 3)).astype(np.float32),
            "actions": generator.uniform(-1, 1, (length, 2)).astype(np.float32),
            "rewards": generator.normal(size=length).astype(np.float32),
            "terminations": np.arange(length) == (length - 1 if end else length),
            "truncations": np.arange(length) == (length if end else length - 1),
        }
        for length, end in zip(LENGTHS, TERMINATED, strict=True)
    ]


def transitions() -> Arrays:
    """A row for each transition, named as D4RL does."""
    found = episodes()
    return {
        "observations": np.concatenate([e["observations"][:-1] for e in found]),
        "next_observations": np.concatenate([e["observations"][1:] for e in found]),
        "actions": np.concatenate([e["actions"] for e in found]),
        "rewards": np.concatenate([e["rewards"] for e in found]),
        "terminals": np.concatenate([e["terminations"] for e in found]),
        "timeouts": np.concatenate([e["truncations"] for e in found]),
    }


def states() -> Arrays:
    """A row for each state, as OGBench has them."""
    found = episodes()
    last = [np.arange(length + 1) == length for length in LENGTHS]
    before = [
        (np.arange(length + 1) == length - 1) & end
        for length, end in zip(LENGTHS, TERMINATED, strict=True)
    ]
    return {
        "observations": np.concatenate([e["observations"] for e in found]),
        "actions": np.concatenate([np.pad(e["actions"], ((0, 1), (0, 0))) for e in found]),
        "terminals": np.concatenate(last),
        "rewards": np.concatenate([np.pad(e["rewards"], (0, 1)) for e in found]),
        "masks": ~np.concatenate(before),
    }


def write_hdf5(path: Path, tree: Arrays) -> Path:
    def fill(group: h5py.Group, members: Arrays) -> None:
        for key, value in members.items():
            if isinstance(value, dict):
                fill(group.create_group(key), value)
            else:
                group[key] = value

    with h5py.File(path, "w") as file:
        fill(file, tree)
    return path


def npz_transitions(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", **transitions())
    return folder / "a.npz"


def npz_states(folder: Path) -> Path:
    np.savez(folder / "b.npz", **states())
    return folder / "b.npz"


def d4rl(folder: Path) -> Path:
    extra = {"infos": {"goal": np.zeros((9, 2))}, "metadata": {"algorithm": "sac"}}
    return write_hdf5(folder / "d4rl.hdf5", transitions() | extra)


def minari(folder: Path) -> Path:
    """Nested observations whose parts, by name, are those of `episodes`."""
    tree = {}
    for i, episode in enumerate(episodes()):
        states = episode.pop("observations")
        parts = {"agent": {"pos": states[:, :1], "vel": states[:, 1:2]}, "goal": states[:, 2:]}
        tree[f"episode_{i}"] = {**episode, "observations": parts, "infos": {"x": np.zeros(3)}}
    return write_hdf5(folder / "minari.hdf5", tree)


def robomimic(folder: Path) -> Path:
    demos = {}
    for i, episode in enumerate(episodes()):
        seen = episode["observations"]
        demos[f"demo_{i}"] = {
            "obs": {"eef": seen[:-1, :2], "object": seen[:-1, 2:]},
            "next_obs": {"eef": seen[1:, :2], "object": seen[1:, 2:]},
            "actions": episode["actions"],
            "rewards": episode["rewards"],
            "dones": episode["terminations"].astype(np.int64),
            "states": np.zeros((len(episode["actions"]), 9)),
        }
    mask = {"train": np.array([b"demo_0"])}
    return write_hdf5(folder / "robomimic.hdf5", {"data": demos, "mask": mask})


def d3rlpy(folder: Path) -> Path:
    """Format 2.1. The next state of a last transition is not in it."""
    tree: Arrays = {"columns": ["observations", "actions", "rewards", "terminated"]}
    for i, (episode, end) in enumerate(zip(episodes(), TERMINATED, strict=True)):
        tree[f"observations_{i}"] = episode["observations"][:-1]
        tree[f"actions_{i}"] = episode["actions"]
        tree[f"rewards_{i}"] = episode["rewards"][:, None]
        tree[f"terminated_{i}"] = end
    return write_hdf5(folder / "d3rlpy.h5", tree | {"num_episodes": 3, "version": "2.1"})


def lerobot(folder: Path) -> Path:
    """A last frame of its own holds the final state of what is cut off."""
    place = folder / "lerobot"
    data = place / "data" / "chunk-000"
    data.mkdir(parents=True)
    (place / "meta").mkdir()
    rows: list[Arrays] = []
    for number, (episode, end) in enumerate(zip(episodes(), TERMINATED, strict=True)):
        frames = len(episode["actions"]) + (not end)
        for frame in range(frames):
            action = episode["actions"][frame] if frame < len(episode["actions"]) else np.zeros(2)
            rewards = np.append(episode["rewards"], 0.0)
            rows.append(
                {
                    "observation.state": episode["observations"][frame].tolist(),
                    "action": action.tolist(),
                    "next.reward": float(rewards[frame]),
                    "next.done": frame == frames - 1,
                    "next.success": end and frame == frames - 1,
                    "episode_index": number,
                    "frame_index": frame,
                    "note": None if frame else "first",
                }
            )
    vector = pl.List(pl.Float32)
    types = {"observation.state": vector, "action": vector, "next.reward": pl.Float32}
    pl.DataFrame(rows, schema_overrides=types).write_parquet(data / "file-000.parquet")
    info = {"codebase_version": "v3.0", "total_episodes": 3, "total_frames": len(rows)}
    (place / "meta" / "info.json").write_text(json.dumps(info))
    return place


COMPLETE: dict[str, Callable[[Path], Path]] = {
    "npz_transitions": npz_transitions,
    "npz_states": npz_states,
    "d4rl": d4rl,
    "minari": minari,
    "robomimic": robomimic,
}
"""Layouts that hold all states: the same arrays come out of each."""
