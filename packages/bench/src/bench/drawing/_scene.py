"""A MuJoCo scene as polygons in the world, drawn without OpenGL.

Flat shading and the painter's algorithm: farther polygons first. That is wrong where large
polygons pass through each other, which these scenes avoid, and it needs no graphics driver.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from bench.drawing._shapes import Floats, Ints, geom_shape

__all__ = ["Camera", "Scene"]

_LIGHT = np.array([0.35, -0.45, 0.82])
_BACKGROUND = (246, 247, 249)
_FLOOR = (np.array([214, 220, 228.0]), np.array([226, 231, 237.0]))
_FINER = 2  # drawn larger and scaled down, which smooths the edges
_TILES = 24


@dataclass(frozen=True, slots=True)
class Camera:
    """A perspective camera as MuJoCo has them: it looks along its negative z-axis.

    Attributes:
        position: `(3,)`.
        axes: columns are right, up and back, `(3, 3)`.
        fovy: vertical field of view, in degrees.
    """

    position: Floats
    axes: Floats
    fovy: float = 45.0

    @classmethod
    def towards(cls, target: Floats, distance: float, azimuth: float, elevation: float) -> Camera:
        """A camera that looks at a point; angles in degrees as MuJoCo's free camera has them."""
        turn, tilt = math.radians(azimuth), math.radians(elevation)
        forward = np.array(
            [math.cos(tilt) * math.cos(turn), math.cos(tilt) * math.sin(turn), math.sin(tilt)]
        )
        right = np.array([math.sin(turn), -math.cos(turn), 0.0])
        axes = np.stack([right, np.cross(right, forward), -forward], axis=1)
        return cls(target - distance * forward, axes)

    def project(self, points: Floats, size: int) -> tuple[Floats, Floats]:
        """Pixels `(..., 2)` of points `(..., 3)`, and their depths `(...)`."""
        local = (points - self.position) @ self.axes
        depth = -local[..., 2]
        focal = size / 2 / math.tan(math.radians(self.fovy) / 2)
        safe = np.where(depth > 1e-6, depth, 1e-6)
        pixels = np.stack([local[..., 0], -local[..., 1]], axis=-1) * (focal / safe)[..., None]
        return pixels + size / 2, depth


class Scene:
    """The visible geoms of a model, ready to be drawn in any state.

    Args:
        model: MuJoCo's compiled model.
        tint: colours that replace those of the model, by geom name.
    """

    def __init__(self, model: Any, tint: dict[str, tuple[float, float, float]]) -> None:
        self._model = model
        vertices, owners, faces = [], [], []
        self._planes: list[int] = []
        count = 0
        for geom in range(model.ngeom):
            if model.geom_group[geom] > 2:  # MuJoCo's viewer hides the others, too
                continue
            if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_PLANE:
                self._planes.append(geom)
            elif (shape := geom_shape(model, geom)) is not None:
                vertices.append(shape[0])
                owners.append(np.full(len(shape[0]), geom))
                faces.append(shape[1] + count)
                count += len(shape[0])
        self._vertices = np.concatenate(vertices)
        self._owners: Ints = np.concatenate(owners)
        self._faces: Ints = np.concatenate(faces)
        self._is_mesh = np.asarray(model.geom_type) == int(mujoco.mjtGeom.mjGEOM_MESH)
        self._tint = {
            geom: np.array(colour)
            for geom in range(model.ngeom)
            if (colour := tint.get(model.geom(geom).name)) is not None
        }

    def draw(self, data: Any, camera: Camera, size: int, trail: Floats) -> Image.Image:
        """A square picture.

        Args:
            data: MuJoCo's state of the model.
            camera: where from.
            size: pixels of a side.
            trail: points `(n, 3)` joined by a line on the floor.
        """
        fine = size * _FINER
        image = Image.new("RGB", (fine, fine), _BACKGROUND)
        pen = ImageDraw.Draw(image, "RGBA")
        for plane in self._planes:
            self._draw_floor(pen, data, plane, camera, fine)
        if len(trail) > 1:
            points, depth = camera.project(trail, fine)
            line = [tuple(point) for point in points[depth > 0].tolist()]
            pen.line(line, fill=(0, 114, 178, 200), width=max(2, fine // 200), joint="curve")
        self._draw_bodies(pen, data, camera, fine)
        return image.resize((size, size), Image.Resampling.LANCZOS)

    def _draw_bodies(self, pen: Any, data: Any, camera: Camera, size: int) -> None:
        rotations = data.geom_xmat.reshape(-1, 3, 3)[self._owners]
        world = np.einsum("vij,vj->vi", rotations, self._vertices)
        world += data.geom_xpos[self._owners]
        pixels, depth = camera.project(world, size)
        colours, alphas = self._colours()
        corners, geoms = world[self._faces], self._owners[self._faces[:, 0]]
        normals = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
        flat = self._faces[:, 2] == self._faces[:, 3]  # triangles
        normals[flat] = np.cross(
            corners[flat, 1] - corners[flat, 0], corners[flat, 2] - corners[flat, 0]
        )
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        centres = corners.mean(axis=1)
        facing = np.einsum("fi,fi->f", normals, camera.position - centres) > 0
        # Reduced meshes have holes, through which their far side is seen.
        mesh = self._is_mesh[geoms]
        normals[mesh & ~facing] *= -1
        visible = (facing | mesh) & (depth[self._faces].min(axis=1) > 1e-3) & (alphas[geoms] > 0)
        shade = 0.5 + 0.5 * (normals @ _LIGHT / np.linalg.norm(_LIGHT)).clip(0)
        rgb = (255 * colours[geoms] * shade[:, None]).clip(0, 255).astype(int)
        distance = np.linalg.norm(centres - camera.position, axis=1)
        order = np.flatnonzero(visible)
        order = order[np.argsort(-distance[order], kind="stable")]
        opacity = (255 * alphas[geoms]).astype(int)
        shapes = pixels[self._faces]
        for face in order.tolist():
            points = shapes[face].reshape(-1).tolist()
            pen.polygon(points, fill=(*rgb[face].tolist(), int(opacity[face])))

    def _colours(self) -> tuple[Floats, Floats]:
        """Colour `(G, 3)` and opacity `(G,)` of every geom, as they are now."""
        model = self._model
        rgba = np.array(model.geom_rgba, dtype=np.float64)
        material = np.asarray(model.geom_matid)
        # MuJoCo takes the material's colour where the geom has kept the default one.
        unset = (material >= 0) & (rgba == [0.5, 0.5, 0.5, 1.0]).all(axis=1)
        rgba[unset] = model.mat_rgba[material[unset]]
        for geom, colour in self._tint.items():
            rgba[geom, :3] = colour
        return rgba[:, :3], rgba[:, 3]

    def _draw_floor(self, pen: Any, data: Any, plane: int, camera: Camera, size: int) -> None:
        half = np.array(self._model.geom_size[plane][:2], dtype=np.float64)
        half[half == 0] = 2 * self._model.stat.extent
        axes = data.geom_xmat[plane].reshape(3, 3)
        steps = [np.linspace(-extent, extent, _TILES + 1) for extent in half]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        points: NDArray[np.float64] = data.geom_xpos[plane] + grid @ axes[:, :2].T
        pixels, depth = camera.project(points, size)
        for row in range(_TILES):
            for column in range(_TILES):
                corners = [
                    (row, column),
                    (row + 1, column),
                    (row + 1, column + 1),
                    (row, column + 1),
                ]
                if min(depth[corner] for corner in corners) > 1e-3:
                    colour = tuple(_FLOOR[(row + column) % 2].astype(int).tolist())
                    pen.polygon([tuple(pixels[corner]) for corner in corners], fill=colour)
