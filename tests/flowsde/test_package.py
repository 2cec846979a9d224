import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import install_import_hook

import flowsde

ROOT = Path(flowsde.__file__).parents[2]


def test_every_public_name_is_importable_and_documented() -> None:
    assert len(set(flowsde.__all__)) == len(flowsde.__all__)
    assert list(flowsde.__all__) == sorted(flowsde.__all__)
    for name in flowsde.__all__:
        value = getattr(flowsde, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name


def python_blocks(text: str) -> list[str]:
    return [part.split("```", 1)[0] for part in text.split("```python\n")[1:]]


@pytest.mark.parametrize("name", ["README.md"])
def test_code_in_the_readme_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = python_blocks((ROOT / name).read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    torch.manual_seed(0)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    assert capsys.readouterr().out


@pytest.fixture
def checked() -> Iterator[ModuleType]:
    """A second copy of the package whose shape annotations are enforced."""
    own = {
        name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "flowsde"
    }
    try:
        with install_import_hook("flowsde", "beartype.beartype"):
            yield importlib.import_module("flowsde")
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "flowsde"]:
            del sys.modules[name]
        sys.modules.update(own)


def test_annotated_shapes_hold_at_run_time(checked: ModuleType, generator) -> None:
    f = checked

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) + t.reshape(t.shape + (1,) * (x.ndim - t.ndim))

    for shape, event_ndim in (((3, 2), 1), ((2, 3, 2), 1), ((2, 1, 4, 4), 3), ((5,), 0)):
        noise = torch.randn(shape, generator=generator)
        batch = shape[: len(shape) - event_ndim]
        times = torch.full(batch, 0.5)
        for path in (f.LinearInterpolant(), f.CosineInterpolant()):
            f.flow_matching_loss(field, noise, noise + 1, times, path, event_ndim)
            for kind in ("data", "noise", "score"):
                f.to_velocity(kind, f.from_velocity(kind, noise, noise, times, path), noise, times)
            for kernel in (
                f.MemorylessEuler(3, event_ndim, interpolant=path),
                f.FollmerKernel(3, event_ndim, interpolant=path, grid="clock"),
                f.AdamsBashforthKernel(3, event_ndim, interpolant=path),
                f.FollmerKernel(3, event_ndim, scale=torch.ones(shape[len(batch) :])),
            ):
                sampled = f.sample_path(kernel, field, noise, generator=generator)
                velocities = f.velocities_along(kernel, field, sampled)
                f.step_log_prob(kernel, sampled, velocities)
                kernel.control_adjoints(sampled.states)
        f.ode_sample_log_prob(field, noise, 2, event_ndim=event_ndim)
        f.ode_log_prob(field, noise, 2, event_ndim=event_ndim, divergence="hutchinson")
    with pytest.raises(Exception, match="Type-check error"):
        f.LinearInterpolant().interpolate(torch.zeros(2, 3), torch.zeros(3, 3), torch.zeros(2))
