"""Plain Python data of an environment as one array of bytes, and back.

What an environment keeps between steps besides the physics (goals, button states, step counters,
generators) lies in its attributes. They are stored as JSON plus arrays in one `.npz` image, so
loading never executes code and every float comes back bit for bit.
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
import types
import zipfile
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

__all__ = ["is_plain", "pack", "plain_attributes", "restore_attributes", "unpack"]

# Objects of these packages hold no state of an episode that is not stored by name elsewhere:
# compiled models and their data (see `_physics`), spaces, poses that are computed before use.
_STATELESS = frozenset({"mujoco", "dm_control", "gymnasium", "ogbench", "pathlib"})
# What a wrapper wraps speaks for itself, and what an object was made with does not change.
_UNCHANGING = frozenset({"env", "_ezpickle_args", "_ezpickle_kwargs"})
_CODE = (
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType,
    type, range, slice,
)  # fmt: skip
_SCALARS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_SEQUENCES = (list, tuple, set, frozenset, deque)


_BUILT: dict[str, Any] = {"tuple": tuple, "set": set, "frozenset": frozenset}


def is_plain(value: object) -> bool:
    """Say whether a value consists of numbers, text, arrays and containers of these only."""
    return next(_foreign_leaves(value), None) is None


def _foreign_leaves(value: object) -> Any:
    if isinstance(value, _SCALARS):
        return
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield value
    elif type(value) in _SEQUENCES:
        for item in value:  # type: ignore[attr-defined]
            yield from _foreign_leaves(item)
    elif type(value) is dict:
        for key, item in value.items():
            yield from _foreign_leaves(key)
            yield from _foreign_leaves(item)
    else:
        yield value


def plain_attributes(owner: object) -> dict[str, Any]:
    """Collect the attributes of an environment (or wrapper) that can change during an episode.

    Args:
        owner: The object; its plain attributes and NumPy generators are taken.

    Returns:
        Attribute name to value; a generator (NumPy's or Python's) stands as its state.

    Raises:
        ValueError: If an attribute is of a kind whose state cannot be stored.
    """
    found: dict[str, Any] = {}
    for name, value in vars(owner).items():
        if name in _UNCHANGING or (isinstance(value, str) and _is_temporary(value)):
            continue
        if isinstance(value, np.random.Generator):
            found[name] = dict(value.bit_generator.state)
            continue
        if isinstance(value, np.random.RandomState):
            found[name] = dict(value.get_state(legacy=False))
            continue
        if type(value) is random.Random:
            found[name] = value.getstate()
            continue
        leaves = list(_foreign_leaves(value))
        if not leaves:
            found[name] = value
        for foreign in leaves:
            if isinstance(foreign, _CODE) or _package(foreign) in _STATELESS:
                continue
            raise ValueError(
                f"the state of {type(owner).__name__} cannot be saved: attribute {name!r} holds a "
                f"{type(foreign).__module__}.{type(foreign).__qualname__}; expected numbers, "
                "strings, arrays, generators of NumPy or Python, or containers of these"
            )
    return found


def _package(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _is_temporary(text: str) -> bool:
    """Whether a text is the path of a temporary file, which every process names anew."""
    return text.startswith(tempfile.gettempdir() + os.sep)


def restore_attributes(owner: object, attributes: Mapping[str, Any]) -> None:
    """Give an object the attributes that `plain_attributes` collected from its like."""
    for name, value in attributes.items():
        current = getattr(owner, name, None)
        if isinstance(current, np.random.Generator):
            current.bit_generator.state = value
        elif isinstance(current, np.random.RandomState):
            current.set_state(value)
        elif type(current) is random.Random:
            current.setstate(value)
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
        if all(isinstance(key, str) for key in value):
            return {"mapping": {key: _encode(item, arrays) for key, item in value.items()}}
        return {"pairs": [[_encode(part, arrays) for part in pair] for pair in value.items()]}
    if isinstance(value, deque):
        items = [_encode(item, arrays) for item in value]
        return {"deque": [value.maxlen, items]}
    if isinstance(value, tuple | set | frozenset):
        return {type(value).__name__: [_encode(item, arrays) for item in value]}
    if isinstance(value, list):
        return [_encode(item, arrays) for item in value]
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
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
    if tag in _BUILT:
        return _BUILT[tag](_decode(item, arrays) for item in content)
    if tag == "pairs":
        return {_decode(key, arrays): _decode(item, arrays) for key, item in content}
    if tag == "deque":
        most, items = content
        return deque((_decode(item, arrays) for item in items), most)
    if tag == "bytes":
        return bytes.fromhex(content)
    if tag == "complex":
        return complex(*content)
    return {key: _decode(item, arrays) for key, item in content.items()}
