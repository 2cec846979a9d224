"""Scenes as pictures and pictures as files; imports no torch, see `bench.drawing.__main__`."""

from __future__ import annotations

from bench.drawing._encode import FORMATS, encode, require_encoder
from bench.drawing._scene import Camera, Scene
from bench.drawing._shapes import geom_shape
from bench.drawing._views import View, views_of

__all__ = [
    "FORMATS",
    "Camera",
    "Scene",
    "View",
    "encode",
    "geom_shape",
    "require_encoder",
    "views_of",
]
