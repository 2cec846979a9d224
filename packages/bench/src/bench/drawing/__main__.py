"""The process that draws: plays recorded actions again, in the same environment, and looks at it.

`python -m bench.drawing FOLDER` reads `request.json` and `actions.npz` there, see
`bench.video._render`. It imports no torch: OpenGL drivers and torch in one process do not agree.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.drawing._encode import encode
from bench.drawing._views import ITSELF, Picture, mujoco_scene, views_of
from bench.errors import BenchError
from bench.simulation import SeededEnv, make, succeeded

__all__ = ["main"]

_STRIP = 44
_HOLD = 20  # frames that an episode's end stays
_DARK, _GREEN, _RED = (40, 44, 52), (0, 130, 90), (190, 60, 20)


def main(folder: Path) -> None:
    """Draw what is asked for.

    Raises:
        BenchError: the environment is not one that can be drawn, fails to draw itself, or does
            something else now.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    environment, renderer = _opened(request["task"], request["renderer"])
    (folder / "renderer").write_text(renderer, encoding="utf-8")
    try:
        with np.load(folder / "actions.npz", allow_pickle=False) as actions:
            frames = [
                frame
                for index, episode in enumerate(request["episodes"])
                for frame in _episode(environment, request, episode, actions[str(index)])
            ]
    finally:
        environment.close()
    encode(frames, Path(request["path"]), request["rate"])


def _opened(task: str, renderer: str) -> tuple[SeededEnv, str]:
    """The environment and who draws it: a renderer of MuJoCo's scenes, or it does itself."""
    environment = make(task)
    if mujoco_scene(environment) is not None:
        return environment, renderer
    environment.close()
    modes = environment.unseeded.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        raise BenchError(
            f"{task} does not run on MuJoCo and cannot draw itself: rgb_array is not among its "
            f"render_modes {modes}"
        )
    return make(task, "rgb_array"), ITSELF


def _episode(
    environment: SeededEnv,
    request: dict[str, Any],
    episode: dict[str, Any],
    actions: np.ndarray,
) -> Iterator[Image.Image]:
    environment.reset(episode["seed"])
    views = views_of(environment, request["renderer"], request["size"])
    stride = -(-len(actions) // request["most_frames"])
    state, colour, total = "", _DARK, 0.0
    info: dict[str, Any] = {}
    for step in range(len(actions) + 1):
        if step > 0:
            _, reward, _, _, info = environment.step(actions[step - 1])
            total += reward
        last = step == len(actions)
        if last:
            if request["solved_at"] is None:
                same = succeeded(info) == episode["success"]
            else:
                same = math.isclose(total, episode["return"], rel_tol=1e-6, abs_tol=1e-6)
            if not same:
                raise BenchError(
                    f"episode {episode['number']} of {request['task']} ends otherwise in this "
                    "process: another simulator version than the policy was played in?"
                )
            state, colour = ("solved", _GREEN) if episode["success"] else ("not solved", _RED)
        for view in views:
            view.follow()
        if last or step % stride == 0:
            text = f"episode {episode['number']}, step {step}"
            frame = _framed(views, request["title"], text, state, colour)
            yield from [frame] * (_HOLD if last else 1)
    for view in views:
        view.close()


def _framed(
    views: Sequence[Picture], title: str, text: str, state: str, colour: tuple[int, int, int]
) -> Image.Image:
    pictures = [view.draw() for view in views]
    width = sum(picture.width for picture in pictures)
    image = Image.new("RGB", (width, pictures[0].height + _STRIP), "white")
    place = 0
    for picture in pictures:
        image.paste(picture, (place, 0))
        place += picture.width
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(14)
    top = pictures[0].height
    pen.text((10, top + 4), title, fill=_DARK, font=font)
    pen.text((10, top + 22), text, fill=_DARK, font=font)
    pen.text((width - 10, top + 22), state, fill=colour, font=font, anchor="ra")
    return image


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except (BenchError, OSError, ValueError) as failure:
        print(failure, file=sys.stderr)
        raise SystemExit(1) from None
