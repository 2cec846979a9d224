"""Drawing in a process of its own: a graphics driver that crashes takes only that one with it."""

from __future__ import annotations

import ctypes.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.storage import atomic_path
from bench.video._rollout import Rollout

__all__ = ["RENDERERS", "record"]

RENDERERS = ("auto", "software", "osmesa", "egl", "glfw")


def record(
    rollout: Rollout,
    episodes: Sequence[int],
    path: Path,
    *,
    title: str,
    renderer: str = "auto",
    size: int = 480,
    most_frames: int = 150,
    rate: float = 25.0,
) -> str:
    """Draws episodes of a rollout one behind the other into one file.

    Args:
        rollout: as `play` returned it.
        episodes: which of them.
        path: the file; its suffix says the format.
        title: written into every frame.
        renderer: `software` draws polygons without OpenGL; `osmesa`, `egl` and `glfw` use
            MuJoCo's renderer with that driver; `auto` is OSMesa where it is installed and works,
            else software.
        size: pixels of a side of a view.
        most_frames: per episode; of longer ones every n-th step is shown.
        rate: frames a second.

    Returns:
        The renderer that was used; `the environment` where it does not run on MuJoCo.

    Raises:
        BenchError: the renderer failed or crashed.
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        arrays: dict[str, Any] = {str(i): rollout.actions[e] for i, e in enumerate(episodes)}
        np.savez(Path(folder) / "actions.npz", **arrays)
        request = {
            "task": rollout.task,
            "title": title,
            "size": size,
            "most_frames": most_frames,
            "rate": rate,
            "solved_at": rollout.solved_at,
            "episodes": [
                {
                    "number": e,
                    "seed": rollout.seeds[e],
                    "success": rollout.successes[e],
                    "return": rollout.returns[e],
                }
                for e in episodes
            ],
        }
        if renderer == "auto" and ctypes.util.find_library("OSMesa") is not None:
            try:
                return _drawn("osmesa", request, Path(folder), path)
            except BenchError:
                renderer = "software"
        return _drawn("software" if renderer == "auto" else renderer, request, Path(folder), path)


def _drawn(renderer: str, request: dict[str, Any], folder: Path, path: Path) -> str:
    driver = "disabled" if renderer == "software" else renderer
    with atomic_path(path) as temporary:
        file = folder / f"video{path.suffix}"
        document = request | {"renderer": renderer, "path": str(file)}
        (folder / "request.json").write_text(json.dumps(document), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - this interpreter, our own module
            [sys.executable, "-m", "bench.drawing", str(folder)],
            capture_output=True,
            text=True,
            env=os.environ | {"MUJOCO_GL": driver},
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"the renderer {renderer} {_reason(done)}")
        temporary.write_bytes(file.read_bytes())
    return (folder / "renderer").read_text(encoding="utf-8")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    last = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return f"crashed ({name}); --renderer software needs no graphics driver"
    return f"failed: {last[0]}"
