"""Frames to a file: GIF, WebP and APNG by Pillow, MP4 where an encoder is installed."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench.errors import BenchError

__all__ = ["FORMATS", "encode", "require_encoder"]

FORMATS = ("gif", "webp", "png", "mp4")
_COLOURS = 256


def require_encoder(kind: str) -> None:
    """Refuses a format that cannot be written here.

    Raises:
        ValueError: an unknown format, or MP4 without an encoder.
    """
    if kind not in FORMATS:
        raise ValueError(f"video format must be one of {', '.join(FORMATS)}, got {kind!r}")
    if kind == "mp4" and _ffmpeg() is None:
        raise ValueError(
            "MP4 needs an encoder: `pip install imageio-ffmpeg`, or ffmpeg on the PATH; GIF, WebP "
            "and PNG need none"
        )


def encode(frames: Sequence[Image.Image], path: Path, rate: float) -> None:
    """Writes frames of one size as an endless loop (MP4: once).

    Args:
        frames: at least one.
        path: its suffix says the format.
        rate: frames a second.

    Raises:
        BenchError: the encoder failed.
        OSError: the file cannot be written.
    """
    kind = path.suffix.lstrip(".")
    if kind == "mp4":
        _encode_mp4(frames, path, rate)
        return
    options: dict[str, Any] = {"save_all": True, "loop": 0, "duration": round(1000 / rate)}
    if kind == "gif":
        frames = _one_palette(frames)
        options |= {"optimize": False, "disposal": 1}
    elif kind == "webp":
        options |= {"quality": 80, "method": 4}
    frames[0].save(path, append_images=list(frames[1:]), **options)


def _one_palette(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """GIF frames with the same colours: no flicker, and equal pixels compress away."""
    some = [frames[index * (len(frames) - 1) // 3] for index in range(4)]
    width, height = some[0].size
    sheet = Image.new("RGB", (width, height * len(some)))
    for index, frame in enumerate(some):
        sheet.paste(frame, (0, index * height))
    palette = sheet.quantize(_COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]


def _encode_mp4(frames: Sequence[Image.Image], path: Path, rate: float) -> None:
    encoder = _ffmpeg()
    assert encoder is not None, "require_encoder comes first"
    width, height = frames[0].size
    command = [
        encoder, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
        "-s", f"{width}x{height}", "-r", f"{rate:g}", "-i", "-",
        "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", str(path),
    ]  # fmt: skip
    done = subprocess.run(  # noqa: S603 - fixed arguments, no shell
        command, input=b"".join(frame.tobytes() for frame in frames), capture_output=True
    )
    if done.returncode != 0:
        raise BenchError(f"{encoder} failed: {done.stderr.decode(errors='replace').strip()}")


def _ffmpeg() -> str | None:
    if importlib.util.find_spec("imageio_ffmpeg") is not None:
        return str(importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe())
    return shutil.which("ffmpeg")
