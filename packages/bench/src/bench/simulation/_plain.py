"""Plain Python data of an environment as one array of bytes, and back.

What an environment keeps between steps besides the physics (goals, button states, step counters,
generators) lies in its attributes. They are stored as JSON plus arrays in one `.npz` image, so
loading never executes code and every float comes back bit for bit.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

__all__ = ["is_plain", "pack", "plain_attributes", "restore_attributes", "unpack"]

# Objects of these packages hold no state of an episode that is not stored by name elsewhere:
# compiled models and their data (see `_physics`), spaces, poses that are computed before use.
_STATELESS = frozenset({"builtins", "mujoco", "dm_control", "gymnasium", "ogbench", "pathlib"})
_SCALARS = (bool, int, float, str, type(None), np.generic)


def is_plain(value: object) -> bool:
    """Say whether a value consists of numbers, strings, arrays and containers of these only."""
    return next(_foreign_leaves(value), None) is None


def _foreign_leaves(value: object) -> Any:
    if isinstance(value, _SCALARS):
        return
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield value
    elif type(value) in (list, tuple):
        for item in value:  # type: ignore[attr-defined]
            yield from _foreign_leaves(item)
    elif type(value) is dict and all(isinstance(key, str) for key in value):
        for item in value.values():
            yield from _foreign_leaves(item)
    else:
        yield value


def plain_attributes(owner: object) -> dict[str, Any]:
    """Collect the attributes of an environment (or wrapper) that can change during an episode.

    Args:
        owner: The object; its plain attributes and NumPy generators are taken.

    Returns:
        Attribute name to value; a generator stands as the state of its bit generator.

    Raises:
        ValueError: If an attribute is of a kind whose state cannot be stored.
    """
    found: dict[str, Any] = {}
    for name, value in vars(owner).items():
        if name == "env":  # what a wrapper wraps speaks for itself
            continue
        if isinstance(value, np.random.Generator):
            found[name] = dict(value.bit_generator.state)
            continue
        foreign = next(_foreign_leaves(value), None)
        if foreign is None:
            found[name] = value
        elif type(foreign).__module__.partition(".")[0] not in _STATELESS:
            raise ValueError(
                f"the state of {type(owner).__name__} cannot be saved: attribute {name!r} holds a "
                f"{type(foreign).__module__}.{type(foreign).__qualname__}; expected numbers, "
                "strings, arrays, NumPy generators or containers of these"
            )
    return found


def restore_attributes(owner: object, attributes: Mapping[str, Any]) -> None:
    """Give an object the attributes that `plain_attributes` collected from its like."""
    for name, value in attributes.items():
        current = getattr(owner, name, None)
        if isinstance(current, np.random.Generator):
            current.bit_generator.state = value
        else:
            setattr(owner, name, value)


def pack(value: Mapping[str, Any]) -> UInt8[np.ndarray, " bytes"]:
    """Write plain data (see `is_plain`) as bytes."""
    arrays: dict[str, np.ndarray] = {}
    text = json.dumps(_encode(value, arrays))
    buffer = io.BytesIO()
    arrays["json"] = np.frombuffer(text.encode(), dtype=np.uint8)
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub takes names for its flags
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8).copy()


def unpack(image: UInt8[np.ndarray, " bytes"]) -> dict[str, Any]:
    """Read what `pack` wrote.

    Raises:
        ValueError: If the bytes are not such an image.
    """
    try:
        with np.load(io.BytesIO(image.tobytes()), allow_pickle=False) as arrays:
            decoded = _decode(json.loads(arrays["json"].tobytes()), dict(arrays))
    except (zipfile.BadZipFile, OSError, KeyError, EOFError, ValueError) as error:
        raise ValueError(
            f"these {image.size} bytes are not the state of an environment: {error}"
        ) from error
    if not isinstance(decoded, dict):
        raise ValueError("these bytes are not the state of an environment: no mapping inside")
    return decoded


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    # Lists stay lists; everything that JSON has no word for becomes {tag: content}.
    if isinstance(value, (np.ndarray, np.generic)):
        key = f"array{len(arrays)}"
        arrays[key] = np.asarray(value)
        return {"array" if isinstance(value, np.ndarray) else "scalar": key}
    if isinstance(value, Mapping):
        return {"mapping": {key: _encode(item, arrays) for key, item in value.items()}}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_encode(item, arrays) for item in value]
    return value


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_decode(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "array":
        return arrays[content]
    if tag == "scalar":
        return arrays[content][()]
    if tag == "tuple":
        return tuple(_decode(item, arrays) for item in content)
    return {key: _decode(item, arrays) for key, item in content.items()}
