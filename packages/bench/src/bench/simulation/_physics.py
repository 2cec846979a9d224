"""The MuJoCo side of an environment: one compiled model, many states.

A compiled manipulation model takes about a second and 70 MB, its state 0.4 MB; so episodes that are
played side by side share the model. OGBench writes into the model during an episode (the lock of a
drawer is the damping of its joint), so those fields belong to the state and are swapped in when
another sibling takes its turn.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

__all__ = ["Physics"]

_EPISODE_FIELDS = ("dof_damping", "geom_pos", "geom_rgba", "mat_rgba", "site_pos")
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class _Model:
    """A compiled model with the fields that episodes change, and whose turn it is."""

    def __init__(self, model: Any) -> None:
        self.compiled = model
        self.fields = tuple(getattr(model, name) for name in _EPISODE_FIELDS)
        self.pristine = tuple(field.copy() for field in self.fields)
        self.active: Physics | None = None


class Physics:
    """The state of one simulated scene, possibly on a model that siblings use too."""

    def __init__(self, model: _Model, data: Any) -> None:
        self._model = model
        self._data = data
        self._fields = tuple(field.copy() for field in model.pristine)

    @classmethod
    def of(cls, environment: Any) -> Physics | None:
        """Find the physics of an environment that has just been built, if it runs on MuJoCo."""
        values = list(vars(environment).values())
        model = next((value for value in values if isinstance(value, mujoco.MjModel)), None)
        data = next((value for value in values if isinstance(value, mujoco.MjData)), None)
        if model is None or data is None:
            return None
        return cls(_Model(model), data)

    def sibling(self) -> tuple[Physics, Any]:
        """Return another state on the same model, and the data that its environment shall use."""
        data = mujoco.MjData(self._model.compiled)
        return Physics(self._model, data), data

    def activate(self) -> None:
        """Make the model's fields those of this scene; call before every step and reset."""
        model = self._model
        if model.active is self:
            return
        if model.active is not None:
            for kept, field in zip(model.active._fields, model.fields, strict=True):
                kept[...] = field
        for field, kept in zip(model.fields, self._fields, strict=True):
            field[...] = kept
        model.active = self

    def restore_model(self) -> None:
        """Undo what the previous episode wrote into the model, whether or not the reset does."""
        self.activate()
        for field, original in zip(self._model.fields, self._model.pristine, strict=True):
            field[...] = original

    def arrays(self) -> dict[str, np.ndarray]:
        """Return copies of everything that a later step or observation can depend on.

        Besides MuJoCo's integration state these are the derived quantities: after a step they
        belong to the last substep's beginning, and controllers read them as they are.
        """
        self.activate()
        model, data = self._model.compiled, self._data
        state = np.empty(mujoco.mj_stateSize(model, _STATE))
        mujoco.mj_getState(model, data, state, _STATE)
        arrays = {f"data/{name}": getattr(data, name).copy() for name in self._derived()}
        for name, field in zip(_EPISODE_FIELDS, self._model.fields, strict=True):
            arrays[f"model/{name}"] = field.copy()
        return arrays | {"state": state}

    def load_arrays(self, arrays: dict[str, np.ndarray]) -> None:
        """Put back what `arrays` returned.

        Raises:
            ValueError: If the arrays belong to another model.
        """
        self.activate()
        model, data = self._model.compiled, self._data
        expected = mujoco.mj_stateSize(model, _STATE)
        if arrays["state"].shape != (expected,):
            raise ValueError(
                f"the saved simulator state has {arrays['state'].size} numbers, expected {expected}"
            )
        for name, field in zip(_EPISODE_FIELDS, self._model.fields, strict=True):
            field[...] = arrays[f"model/{name}"]
        mujoco.mj_setState(model, data, arrays["state"], _STATE)
        # Rebuilds contacts and constraints, which environments that step in halves go on from.
        mujoco.mj_forward(model, data)
        mujoco.mj_setState(model, data, arrays["state"], _STATE)
        for name in self._derived():
            getattr(data, name)[...] = arrays[f"data/{name}"]

    def _derived(self) -> tuple[str, ...]:
        # Arrays in MuJoCo's arena (contacts, constraints) change size and are rebuilt, those for
        # collision trees are large and only drawn; everything else of fixed size is kept.
        return tuple(
            name
            for name in dir(self._data)
            if not name.startswith(("_", "bvh_", "efc_", "iefc_", "ifrc_", "iacc", "iLDiagInv"))
            and isinstance(value := getattr(self._data, name), np.ndarray)
            and value.dtype == np.float64
            and value.size > 0
        )
