"""Images of LeRobot datasets: stored in the parquet files, or as frames of videos."""

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import UInt8

from bench.data._errors import DataDamaged
from bench.data._files import check_regular, reading
from bench.data._tree import Leaf

__all__ = ["image_leaves"]

# Names with a width at most: what str.format could look up beyond that is no place of a file.
_TEMPLATE = re.compile(
    r"(?:[\w./-]|\{(?:video_key|episode_chunk|episode_index|chunk_index|file_index)(?::0?\d+d)?\})+"
)
_SECONDS_OFF = 0.5  # Of a frame's duration: how far a frame may lie from its time.


@dataclass(frozen=True, slots=True)
class _Camera:
    """Images of one feature.

    Attributes:
        shape: (height, width, channels) of each.
        frames: of an episode, by its number and its number of frames.
    """

    shape: tuple[int, ...]
    frames: Callable[[int, int], UInt8[np.ndarray, "frames height width channels"]]


def image_leaves(
    folder: Path,
    info: Mapping[str, Any],
    schema: Mapping[str, pl.DataType],
    episode: int,
    rows: int,
) -> dict[str, Leaf]:
    """The images of an episode by feature, in bytes (rows, height, width, channels), read later.

    Args:
        folder: of the dataset.
        info: its meta/info.json.
        schema: of its parquet files.
        episode: number of the episode.
        rows: its frames.

    Raises:
        DataDamaged: if the description of a feature is not one; on reading, if images are missing
            or of another shape.
        ValueError: on reading videos where the package that decodes them is not installed.
    """
    return {
        key: Leaf(
            folder,
            key,
            np.dtype(np.uint8),
            (rows, *camera.shape),
            lambda camera=camera: camera.frames(episode, rows),  # type: ignore[misc]
        )
        for key, camera in _cameras(folder, info, schema).items()
    }


def _cameras(
    folder: Path, info: Mapping[str, Any], schema: Mapping[str, pl.DataType]
) -> dict[str, _Camera]:
    found: dict[str, _Camera] = {}
    features = info.get("features") or {}
    for key, feature in features.items():
        kind = feature.get("dtype") if isinstance(feature, Mapping) else None
        if kind not in ("image", "video") or not str(key).startswith("observation."):
            continue
        shape = _shape(folder, key, feature)
        if kind == "image" and key in schema:
            found[key] = _Camera(shape, _stored(folder, key, shape))
        if kind == "video":
            found[key] = _Camera(shape, _filmed(folder, info, key, shape))
    return found


def _shape(folder: Path, key: str, feature: Mapping[str, Any]) -> tuple[int, ...]:
    """Height, width and channels, in whatever order the feature names them."""
    shape, names = feature.get("shape"), feature.get("names") or ("height", "width", "channels")
    numbers = isinstance(shape, list) and all(isinstance(n, int) and 0 < n < 2**16 for n in shape)
    if not numbers or len(shape) != 3 or len(names) != 3:  # type: ignore[arg-type]
        raise DataDamaged(f"{folder}: feature '{key}' has the shape {shape}, expected an image's")
    assert isinstance(shape, list)
    height, width, channels = shape
    if str(names[0]).startswith("channel"):
        channels, height, width = shape
    return height, width, channels


def _stored(folder: Path, key: str, shape: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
    def frames(episode: int, rows: int) -> np.ndarray:
        from PIL import Image

        with reading(f"{folder}/{key}", "set of images"):
            table = (
                pl.scan_parquet(sorted((folder / "data").glob("*/*.parquet")))
                .filter(pl.col("episode_index") == episode)
                .sort("frame_index")
                .select(key)
                .collect()
            )
            images = np.empty((rows, *shape), np.uint8)
            for row, cell in enumerate(table[key]):
                content = cell["bytes"] if cell["bytes"] else _file(folder, cell["path"])
                image = np.asarray(Image.open(io.BytesIO(content)))
                images[row] = image.reshape(_expected(folder, key, image.shape, shape))
        return images

    return frames


def _file(folder: Path, path: str) -> bytes:
    """An image that lies beside the tables; only of the dataset itself."""
    place = _inside(folder, path)
    check_regular(place)
    return place.read_bytes()


def _inside(folder: Path, path: str) -> Path:
    """A file of the dataset; nothing in it may name another."""
    place = (folder / path).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise DataDamaged(f"{folder}: {path} lies outside of the dataset")
    return place


def _filmed(
    folder: Path, info: Mapping[str, Any], key: str, shape: tuple[int, ...]
) -> Callable[[int, int], np.ndarray]:
    def frames(episode: int, rows: int) -> np.ndarray:
        fps = float(info["fps"])
        path, begin = _video(folder, info, key, episode)
        _require_decoder(path)
        images = np.empty((rows, *shape), np.uint8)
        missing = set(range(rows))
        with reading(path, "video"):
            for second, image in _decoded(path, begin):
                place = (second - begin) * fps
                row = round(place)
                if row >= rows:
                    break
                if row in missing and abs(place - row) <= _SECONDS_OFF:
                    images[row] = image.reshape(_expected(path, key, image.shape, shape))
                    missing.remove(row)
        if missing:
            raise DataDamaged(
                f"{path}: frame {min(missing)} of episode {episode} of '{key}' is not in the video"
            )
        return images

    return frames


def _require_decoder(path: Path) -> None:
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path} is a video, which the package av decodes: install trqam-bench[videos], or "
            "name the other features with observation_keys"
        ) from error


def _decoded(path: Path, begin: float) -> Any:
    """Seconds and images (height, width, 3) from a time on."""
    import av

    check_regular(path)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if begin > 0.0:
            container.seek(int(begin / float(stream.time_base or 1)), stream=stream, backward=True)
        for frame in container.decode(stream):
            if frame.time is not None:
                yield float(frame.time), frame.to_ndarray(format="rgb24")


def _video(folder: Path, info: Mapping[str, Any], key: str, episode: int) -> tuple[Path, float]:
    """The video of an episode, and the second in which the episode begins there."""
    template = str(info.get("video_path") or "")
    numbers: dict[str, Any] = {"video_key": key, "episode_index": episode}
    begin = 0.0
    if str(info["codebase_version"]).startswith("v2."):
        numbers["episode_chunk"] = episode // int(info.get("chunks_size") or 1000)
    else:
        row = _episodes(folder).filter(pl.col("episode_index") == episode)
        if row.height != 1:
            raise DataDamaged(f"{folder}: meta/episodes does not describe episode {episode}")
        for name in ("chunk_index", "file_index"):
            numbers[name] = int(row[f"videos/{key}/{name}"].item())
        begin = float(row[f"videos/{key}/from_timestamp"].item())
    if not _TEMPLATE.fullmatch(template):
        raise DataDamaged(f"{folder}: meta/info.json gives {template!r} as the place of videos")
    with reading(f"{folder}/meta/info.json", "template of a path"):
        return _inside(folder, template.format(**numbers)), begin


@cache
def _episodes(folder: Path) -> pl.DataFrame:
    """Where each episode lies, as format 3 has it."""
    files = sorted((folder / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DataDamaged(f"{folder}: no meta/episodes/*/*.parquet says where episodes are")
    with reading(folder, "set of parquet files"):
        return pl.concat([pl.read_parquet(file) for file in files], how="diagonal_relaxed")


def _expected(
    place: Path, key: str, found: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...]:
    """The shape of the feature, which an image must have; grey ones may lack their channel."""
    if found != shape and (*found, 1) != shape:
        raise DataDamaged(f"{place}: an image of '{key}' has shape {found}, expected {shape}")
    return shape
