"""Where to look from: a camera of the scene, a maze from above, a body from near by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import mujoco
import numpy as np
from PIL import Image

from bench.drawing._scene import Camera, Scene
from bench.drawing._shapes import Floats
from bench.errors import BenchError
from bench.simulation import SeededEnv

__all__ = ["ITSELF", "Picture", "View", "mujoco_scene", "views_of"]

ITSELF = "the environment"
"""In place of a renderer, where an environment draws itself."""

_WALL = (0.56, 0.61, 0.68)
_GOAL = (0.0, 0.62, 0.45)
_MARGIN = 0.03


class Picture(Protocol):
    """Something that can be looked at while an episode goes on."""

    def follow(self) -> None:
        """Take note of where the body is."""

    def draw(self) -> Image.Image:
        """The picture of the environment's present state."""

    def close(self) -> None:
        """Release the driver."""


class View:
    """One square picture of a scene, drawn by polygons or by OpenGL.

    Args:
        model: MuJoCo's compiled model.
        data: its state in the environment; read, never changed.
        camera: from a state to where it is seen from.
        renderer: see `bench.video.record`.
        size: pixels of a side.
        tint: see `Scene`.
        trail: draw the way of the first two coordinates.
    """

    def __init__(
        self,
        model: Any,
        data: Any,
        camera: Callable[[Any], Camera],
        renderer: str,
        size: int,
        *,
        tint: dict[str, tuple[float, float, float]],
        trail: bool,
    ) -> None:
        self._model, self._data, self._camera, self._size = model, data, camera, size
        # Positions are computed in a state of our own: the environment's must not move.
        self._shown = mujoco.MjData(model)
        self._trail: list[Floats] | None = [] if trail else None
        self._scene = Scene(model, tint) if renderer == "software" else None
        self._renderer = None if self._scene else mujoco.Renderer(model, size, size)

    def follow(self) -> None:
        """Take note of where the body is."""
        if self._trail is not None:
            self._trail.append(np.append(np.array(self._data.qpos[:2]), 0.02))

    def draw(self) -> Image.Image:
        """The picture of the environment's present state."""
        shown = self._shown
        shown.qpos[:] = self._data.qpos
        shown.mocap_pos[:], shown.mocap_quat[:] = self._data.mocap_pos, self._data.mocap_quat
        mujoco.mj_kinematics(self._model, shown)
        mujoco.mj_camlight(self._model, shown)
        camera = self._camera(shown)
        if self._scene is not None:
            trail = np.array(self._trail or np.zeros((0, 3)))
            return self._scene.draw(shown, camera, self._size, trail)
        assert self._renderer is not None
        self._renderer.update_scene(shown)
        for eye in self._renderer.scene.camera:
            eye.pos, eye.forward, eye.up = camera.position, -camera.axes[:, 2], camera.axes[:, 1]
            eye.frustum_center = 0.0
            eye.frustum_top = eye.frustum_near * np.tan(np.radians(camera.fovy) / 2)
            eye.frustum_bottom = -eye.frustum_top
        return Image.fromarray(self._renderer.render())

    def close(self) -> None:
        """Release the driver."""
        if self._renderer is not None:
            self._renderer.close()


class _OwnView:
    """What an environment shows of itself, scaled to a height."""

    def __init__(self, environment: SeededEnv, size: int) -> None:
        self._environment, self._size = environment, size

    def follow(self) -> None:
        pass

    def draw(self) -> Image.Image:
        try:
            shown = np.asarray(self._environment.unseeded.render())
        except Exception as error:  # Whatever it is: the code is the user's.
            raise BenchError(
                f"the render() of {self._environment.task_name} failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        if shown.dtype != np.uint8 or shown.ndim != 3 or shown.shape[2] != 3 or not shown.size:
            raise BenchError(
                f"the render() of {self._environment.task_name} gave {shown.dtype} of shape "
                f"{shown.shape}, expected uint8 (height, width, 3)"
            )
        picture = Image.fromarray(np.ascontiguousarray(shown))
        width = max(1, round(self._size * picture.width / picture.height))
        return picture.resize((width, self._size))

    def close(self) -> None:
        pass


def mujoco_scene(environment: SeededEnv) -> tuple[Any, Any] | None:
    """MuJoCo's compiled model and state of an environment, None where it runs on another one."""
    values = list(vars(environment.unseeded.unwrapped).values())
    model = next((value for value in values if isinstance(value, mujoco.MjModel)), None)
    data = next((value for value in values if isinstance(value, mujoco.MjData)), None)
    return None if model is None or data is None else (model, data)


def views_of(environment: SeededEnv, renderer: str, size: int) -> Sequence[Picture]:
    """The views that suit an environment: of its MuJoCo scene, or its own."""
    scene = mujoco_scene(environment)
    if scene is None:
        return [_OwnView(environment, size)]
    model, data = scene
    names = [model.geom(index).name for index in range(model.ngeom)]
    walls = [index for index, name in enumerate(names) if name.startswith("block_")]
    tint = dict.fromkeys((names[index] for index in walls), _WALL) | {"target": _GOAL}

    def view(camera: Callable[[Any], Camera], *, trail: bool = False) -> View:
        return View(model, data, camera, renderer, size, tint=tint, trail=trail)

    if "front" in (model.camera(index).name for index in range(model.ncam)):
        return [view(lambda shown: _fixed(model, shown, "front"))]
    if walls:
        above = _over(model, walls)
        views = [view(lambda _: above, trail=True)]
        if np.any(model.jnt_type == mujoco.mjtJoint.mjJNT_FREE):  # legs, worth a closer look
            views.append(view(lambda shown: Camera.towards(shown.qpos[:3].copy(), 6.0, 65, -30)))
        return views
    centre, distance = np.array(model.stat.center), 2.2 * float(model.stat.extent)
    return [view(lambda _: Camera.towards(centre, distance, 120, -25))]


def _fixed(model: Any, shown: Any, name: str) -> Camera:
    index = model.camera(name).id
    axes = shown.cam_xmat[index].reshape(3, 3).copy()
    return Camera(shown.cam_xpos[index].copy(), axes, float(model.cam_fovy[index]))


def _over(model: Any, walls: list[int]) -> Camera:
    """From above, slightly from the south, so near that the maze just fits."""
    centres, halves = model.geom_pos[walls], model.geom_size[walls]
    low, high = (centres - halves).min(axis=0), (centres + halves).max(axis=0)
    corners = np.array(
        [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
    )
    distance = float(np.linalg.norm(high - low)) / 2
    while True:
        camera = Camera.towards((low + high) / 2, distance, 90, -78)
        pixels, depth = camera.project(corners, 1)
        if (depth > 0).all() and (np.abs(pixels - 0.5) < 0.5 - _MARGIN).all():
            return camera
        distance *= 1.03
