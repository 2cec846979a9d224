"""Reference numbers of the published implementations, as the agents of this project see them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.agents import Problem
from qlearn import ChunkBatch, RandomStreams

REFERENCE = Path(__file__).parents[2] / "reference"

# Largest difference over largest value; the independent implementation that the files' README
# tells of saw 1.5e-6 to 2.3e-6 (trace: 1.1e-5), float32's rounding through some 40 products.
EXPECT, GRADIENT, AFTER, TARGET, STATE, TRACE = 1e-5, 1e-5, 2e-5, 1e-6, 1e-6, 1e-4


class Reference:
    """One file of reference numbers; arrays gain the replica axis ``R = 1`` on request."""

    def __init__(self, name: str) -> None:
        with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: file[key] for key in file.files}
        self.config: dict[str, Any] = json.loads(str(self.arrays.pop("config")))
        self.horizon = self.config["horizon_length"] if self.config["action_chunking"] else 1
        self.problem = Problem(self.config["obs_dim"], self.config["action_dim"], self.horizon)

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    def group(self, prefix: str) -> dict[str, Tensor]:
        return {
            key.removeprefix(prefix): torch.from_numpy(value)
            for key, value in self.arrays.items()
            if key.startswith(prefix)
        }

    def batch(self, index: tuple[int, ...] = ()) -> ChunkBatch:
        """The batch as the agents read it: flat chunks, last column of everything else."""
        part = {key: value[index] for key, value in self.group("batch/").items()}
        last = {key: part[key][:, -1] for key in ("rewards", "masks", "valid")}
        chunk = part["actions"][:, : self.horizon].flatten(1)
        return ChunkBatch(
            observations=part["observations"][None],
            actions=chunk[None],
            next_observations=part["next_observations"][:, -1][None],
            **{key: value[None] for key, value in last.items()},
        )

    def noise(self, index: tuple[int, ...] = ()) -> dict[str, Tensor]:
        noise = {key: value[index][None] for key, value in self.group("noise/").items()}
        return {key: v.squeeze(-1) if key.endswith("_t") else v for key, v in noise.items()}


def parameter_names(reference_name: str, modules: Mapping[str, str]) -> str:
    """Name in our modules of the reference's ``<net>/<layer><i>/<kind>``."""
    net, layer, *kind = reference_name.split("/")
    if not kind:
        return modules[f"{net}/{layer}"]
    if layer in ("mean", "log_std"):
        return f"{modules[net]}.{layer}_{ {'kernel': 'kernel', 'bias': 'bias'}[kind[0]] }"
    index = layer.lstrip("densl")
    names = {"kernel": "kernels", "scale": "scales"}
    plural = names.get(kind[0], "biases" if layer.startswith("dense") else "shifts")
    return f"{modules[net]}.{plural}.{index}"


def load_parameters(
    agent: nn.Module, values: Mapping[str, Tensor], modules: Mapping[str, str]
) -> None:
    parameters = dict(agent.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[parameter_names(name, modules)].copy_(value[None])


def error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


class Spy:
    """Records what an agent's module hands to the libraries and gets back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        self._monkeypatch, self._module = monkeypatch, module
        self.calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}

    def on(self, *names: str) -> "Spy":
        for name in names:
            self._monkeypatch.setattr(self._module, name, self._recording(name))
        return self

    def _recording(self, name: str) -> Callable[..., Any]:
        original = getattr(self._module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.calls.setdefault(name, []).append((args, result))
            return result

        return call

    def result(self, name: str, index: int = 0) -> Any:
        return self.calls[name][index][1]

    def argument(self, name: str, position: int, index: int = 0) -> Any:
        return self.calls[name][index][0][position]


@pytest.fixture
def streams() -> RandomStreams:
    return RandomStreams([0], torch.device("cpu"))
