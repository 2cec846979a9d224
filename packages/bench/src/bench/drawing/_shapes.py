"""MuJoCo's geoms as polygons in their own frames."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

__all__ = ["Shape", "geom_shape"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Shape = tuple[Floats, Ints]
"""Vertices `(V, 3)` and quadrilaterals `(F, 4)`, counter-clockwise from outside; a triangle repeats
its last vertex."""

_AROUND = 16  # corners of a round shape
_CELLS = 20  # per axis, to which a mesh of many thousand faces is reduced
_FEW = 1_000  # faces that are left as they are


def geom_shape(model: Any, geom: int) -> Shape | None:
    """The polygons of a geom; None for planes and for kinds that are not drawn."""
    size = np.asarray(model.geom_size[geom], dtype=np.float64)
    kind = int(model.geom_type[geom])
    if kind == mujoco.mjtGeom.mjGEOM_BOX:
        return _box(size)
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        return _turned(_half_circle(size[0], size[0]))
    if kind == mujoco.mjtGeom.mjGEOM_ELLIPSOID:
        vertices, faces = _turned(_half_circle(1.0, 1.0))
        return vertices * size, faces
    if kind == mujoco.mjtGeom.mjGEOM_CAPSULE:
        circle = _half_circle(size[0], size[0])
        circle[:, 1] += np.where(circle[:, 1] >= 0, size[1], -size[1])
        return _turned(circle)
    if kind == mujoco.mjtGeom.mjGEOM_CYLINDER:
        radius, half = size[0], size[1]
        return _turned(np.array([[0, -half], [radius, -half], [radius, half], [0, half]]))
    if kind == mujoco.mjtGeom.mjGEOM_MESH:
        return _mesh(model, int(model.geom_dataid[geom]))
    return None


def _box(half: Floats) -> Shape:
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    faces = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    return signs * half, np.array(faces)


def _half_circle(radius: float, height: float) -> Floats:
    """Radius and height from the south pole to the north pole; two points at the equator."""
    angles = np.concatenate([np.linspace(-90, -1e-6, 5), np.linspace(0, 90, 5)]) * np.pi / 180
    return np.stack([radius * np.cos(angles).clip(0), height * np.sin(angles)], axis=1)


def _turned(profile: Floats) -> Shape:
    """The body that a profile `(P, 2)` of radius and height makes around the z-axis."""
    angles = np.arange(_AROUND) * 2 * np.pi / _AROUND
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vertices = np.concatenate(
        [np.column_stack([radius * ring, np.full(_AROUND, z)]) for radius, z in profile]
    )
    here = np.arange(_AROUND)
    there = (here + 1) % _AROUND
    faces = [
        np.stack([row + here, row + there, row + _AROUND + there, row + _AROUND + here], axis=1)
        for row in _AROUND * np.arange(len(profile) - 1)
    ]
    return vertices, np.concatenate(faces)


def _mesh(model: Any, mesh: int) -> Shape:
    """A mesh with the vertices of each cell of a grid put into one."""
    first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
    vertices = np.asarray(model.mesh_vert[first : first + count], dtype=np.float64)
    first, count = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
    faces = np.asarray(model.mesh_face[first : first + count], dtype=np.int64)
    if count <= _FEW:
        return vertices, np.column_stack([faces, faces[:, 2]])
    low = vertices.min(axis=0)
    cell = max(float((vertices.max(axis=0) - low).max()) / _CELLS, 1e-9)
    _, group = np.unique(((vertices - low) / cell).astype(int), axis=0, return_inverse=True)
    group = group.reshape(-1)
    sizes = np.bincount(group)
    merged = np.stack([np.bincount(group, vertices[:, a]) / sizes for a in range(3)], axis=1)
    faces = group[faces]
    a, b, c = faces.T
    faces = np.unique(faces[(a != b) & (b != c) & (a != c)], axis=0)
    return merged, np.column_stack([faces, faces[:, 2]])
