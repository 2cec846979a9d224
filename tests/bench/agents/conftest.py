"""Reference numbers of the published implementations, as the agents of this project see them."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adjoint import _bridge_estimators, _estimators
from bench.agents import Problem, losses
from flowsde import TransitionKernel
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

    @staticmethod
    def folder() -> Path:
        """Where the files are."""
        return REFERENCE

    @classmethod
    def describing_themselves(cls) -> list[str]:
        """Names of the files that say themselves which agent they are about."""
        names = sorted(path.stem for path in REFERENCE.glob("*.npz"))
        return [name for name in names if "agent" in cls(name).config]

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
        """The random numbers by our names, replica axis added."""
        noise = {key: value[index][None] for key, value in self.group("noise/").items()}
        for theirs, ours in _NOISE.items():
            if theirs in noise:
                noise[ours] = noise.pop(theirs)
        return {key: v.squeeze(-1) if key.endswith("_t") else v for key, v in noise.items()}

    def settings(self) -> dict[str, Any]:
        """The settings that all agents of these files have, by our names."""
        c = self.config
        return {
            "actor_hidden": tuple(c["actor_hidden_dims"]),
            "actor_layer_norm": c["actor_layer_norm"],
            "critic_hidden": tuple(c["value_hidden_dims"]),
            "critic_layer_norm": c["value_layer_norm"],
            "num_critics": c["num_qs"],
            "discount": c["discount"],
            "rho": c["rho"],
            "learning_rate": c["lr"],
            "tau": c["tau"],
            "max_gradient_norm": c["max_grad_norm"],
            **({"flow_steps": c["flow_steps"]} if "flow_steps" in c else {}),
        }


def translated(values: Mapping[str, Tensor], modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Values of ``<net>/<layer><i>/<kind>`` under the names of our parameters, replica axis added.

    Args:
        values: by the reference's names.
        modules: module path of each net, or of the parameter where a net is a single scalar.
    """
    found: dict[str, Tensor] = {}
    for name, value in values.items():
        net, layer, *kind = name.split("/")
        if not kind:
            found[modules[net]] = value[None]
        elif layer == "mean":
            # Both heads of a Gaussian are one output layer here, mean first.
            parts = (value, values[f"{net}/log_std/{kind[0]}"])
            index = sum(other.startswith(f"{net}/dense") for other in values) // 2
            found[f"{modules[net]}.{_PLURAL[kind[0]]}.{index}"] = torch.cat(parts, dim=-1)[None]
        elif layer != "log_std":
            index = int(layer.lstrip("densl"))
            plural = "shifts" if layer.startswith("ln") and kind[0] == "bias" else _PLURAL[kind[0]]
            found[f"{modules[net]}.{plural}.{index}"] = value[None]
    return found


_NOISE = {
    "fql_noise": "distill",
    "sde_x0": "path_x0",
    "sde_steps": "path_noise",
    "ode_x0": "path_x0",
    "bridge_eps": "path_noise",
}

_PLURAL = {"kernel": "kernels", "bias": "biases", "scale": "scales"}


def load_parameters(
    agent: nn.Module, values: Mapping[str, Tensor], modules: Mapping[str, str]
) -> None:
    parameters = dict(agent.named_parameters())
    with torch.no_grad():
        for name, value in translated(values, modules).items():
            parameters[name].copy_(value)


def total_loss(agent: Any, reference: Reference, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The loss that an update hands to the optimiser, with its graph; the update stops there."""

    class StoppedError(Exception):
        pass

    def stop(loss: Tensor) -> None:
        raise StoppedError(loss)

    with monkeypatch.context() as patch:
        patch.setattr(agent.learner, "step", stop)
        with pytest.raises(StoppedError) as stopped:
            agent.update(reference.batch(), reference.noise())
    loss = stopped.value.args[0]
    assert isinstance(loss, Tensor)
    return loss


def check_gradients(agent: Any, total: Tensor, expected: Mapping[str, Tensor]) -> None:
    """Gradients of exactly the trained parameters against ``expected``, by our names."""
    assert sorted(expected) == sorted(agent.learner.names)
    parameters = dict(agent.named_parameters())
    gradients = torch.autograd.grad(total.sum(), [parameters[name] for name in expected])
    for (name, value), gradient in zip(expected.items(), gradients, strict=True):
        assert error(gradient, value) < GRADIENT, name


def check_after(agent: Any, expected: Mapping[str, Tensor]) -> None:
    """Parameters after an update against ``expected``, by our names."""
    parameters = dict(agent.named_parameters())
    for name, value in expected.items():
        limit = TARGET if name.startswith("target") else AFTER
        assert error(parameters[name].detach(), value) < limit, name


def check_expected(reference: Reference, found: Mapping[str, Tensor]) -> None:
    """Intermediate values against the reference's, by its names."""
    for name, value in found.items():
        assert error(value.detach(), reference.tensor(f"expect/{name}")) < EXPECT, name


def error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


class Spy:
    """Records what modules or objects hand to functions of theirs and get back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.calls: dict[str, list[tuple[tuple[Any, ...], Any]]] = {}

    def on(self, owner: Any, *names: str) -> "Spy":
        for name in names:
            self._monkeypatch.setattr(owner, name, self._recording(owner, name))
        return self

    def _recording(self, owner: Any, name: str) -> Callable[..., Any]:
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.calls.setdefault(name, []).append((args, result))
            return result

        return call

    def on_returned(self, owner: Any, name: str) -> "Spy":
        """Records calls of the functions that ``owner.name`` returns, as ``name()``."""
        original = getattr(owner, name)

        def call(*args: Any) -> Any:
            inner = original(*args)

            def recorded(*inputs: Any) -> Any:
                result = inner(*inputs)
                self.calls.setdefault(f"{name}()", []).append((inputs, result))
                return result

            return recorded

        self._monkeypatch.setattr(owner, name, call)
        return self

    def result(self, name: str, index: int = 0) -> Any:
        return self.calls[name][index][1]

    def argument(self, name: str, position: int, index: int = 0) -> Any:
        return self.calls[name][index][0][position]


def td_values(spy: Spy) -> dict[str, Tensor]:
    """What the critic's update computes, by the reference's names."""
    return {
        "next_qs": spy.argument("pessimistic_value", 0)[0],
        "next_q": spy.result("pessimistic_value")[0],
        "target_q": spy.result("td_target")[0],
        "q": spy.argument("td_loss", 0)[0],
    }


def cloning_values(spy: Spy) -> dict[str, Tensor]:
    """What flow matching computes; the spy is on the flow's ``forward``, cloning calls it first."""
    return {"bc_x_t": spy.argument("forward", 1)[0], "bc_pred": spy.result("forward")[0]}


def adjoint_values(spy: Spy, kernel: TransitionKernel, scale: float = 1.0) -> dict[str, Tensor]:
    """What adjoint matching computes; ``scale`` is the factor of Q in the reward."""
    path, adjoints = spy.result("sample_path"), spy.result("lean_adjoint")
    return {
        "sde_xs": path.inputs[:, 0],
        "sde_x1": path.sample[0],
        "sde_ts": torch.tensor(kernel.times),
        "g_sq": torch.tensor(kernel.stds).square() * kernel.steps,
        "critic_grad": spy.result("terminal_gradient")[0] / scale,
        "adj_init": adjoints[-1, 0],
        "adjs": adjoints[:-1, 0],
        "v_fine": spy.result("velocities_along", 1)[:, 0],
        "v_base": spy.result("velocities_along", 0)[:, 0],
    }


def spy_on_shared_parts(monkeypatch: pytest.MonkeyPatch) -> Spy:
    """A spy on the critic's update and on adjoint matching."""
    spy = Spy(monkeypatch).on(losses, "pessimistic_value", "td_target", "td_loss")
    shared = ("terminal_gradient", "velocities_along")
    spy.on(_estimators, "sample_path", "lean_adjoint", *shared)
    return spy.on(_bridge_estimators, "bridge_path", "ode_sample", *shared)


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors are float64, so that equal formulas agree to many digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def streams() -> RandomStreams:
    return RandomStreams([0], torch.device("cpu"))
