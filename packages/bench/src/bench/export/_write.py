"""A policy as files: a `torch.export` program, an ONNX graph, and a page on how to call them."""

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bench.agents import AGENTS
from bench.errors import BenchError
from bench.policies import Policy, TrainedPolicy
from bench.storage import package_versions, write_bytes, write_json

__all__ = ["Exported", "Format", "export_policy"]

Format = Literal["pt2", "onnx"]

_FORMAT = 1
_CHECKED = 64  # Random observations on which the files are compared with the agent.
_TOLERANCE = 1e-4  # Of the action range; what is seen is 1e-7 to 1e-6.
_OTHER_CHOICES = 0.05  # Of the rows, where near ties between candidates may be broken otherwise.


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Attributes:
        policy: what it was written from.
        directory: where it lies.
        files: by format, and the manifest under `json`.
        differences: by format, the largest difference from the agent's actions relative to their
            range, over the checked observations whose candidate is the same.
        other_choices: by format, rows of those for which another candidate was played.
    """

    policy: TrainedPolicy
    directory: Path
    files: dict[str, Path]
    differences: dict[str, float]
    other_choices: dict[str, int]


def export_policy(
    trained: TrainedPolicy, directory: Path, formats: Sequence[Format] = ("pt2", "onnx")
) -> Exported:
    """Write a policy, and compare what was written with the agent.

    Args:
        trained: the policy.
        directory: receives `policy.pt2`, `policy.onnx` and `policy.json`.
        formats: which programs.

    Raises:
        ValueError: an agent that cannot be exported, or a package that is not installed.
        BenchError: a written program does not give the agent's actions.
        OSError: a file cannot be written.
    """
    name = trained.cell.agent
    if not AGENTS[name].exportable:
        raise ValueError(
            f"agent {name!r} follows gradients of its critic when it acts, which torch.export does "
            "not record; agents without that can be exported"
        )
    trained.agent.requires_grad_(requires_grad=False)  # a program has constants, no parameters
    policy = Policy(trained)
    if "onnx" in formats:
        _require_onnx()
    program = _program(policy)
    files: dict[str, Path] = {}
    differences: dict[str, float] = {}
    others: dict[str, int] = {}
    for name in formats:
        path = directory / f"policy.{name}"
        directory.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _torch_bytes(program) if name == "pt2" else _onnx_bytes(policy, program))
        files[name] = path
        run = _torch_run(path) if name == "pt2" else _onnx_run(path)
        differences[name], others[name] = _compare(policy, run, path)
    manifest = _manifest(trained, policy, files, differences)
    files["json"] = directory / "policy.json"
    write_json(files["json"], manifest)
    return Exported(trained, directory, files, differences, others)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"writing ONNX needs the package {error.name}: install trqam-bench[export], or give "
            "--formats pt2"
        ) from error


def _program(policy: Policy) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    noise = tuple({0: batch} for _ in policy.noise)
    shapes = ({0: batch}, noise) if noise else ({0: batch},)  # an agent may act without any
    # Where gradients are off already, the agent's own switches leave no trace in the program.
    with torch.no_grad():
        return torch.export.export(policy, policy.example(3), dynamic_shapes=shapes, strict=False)


def _torch_bytes(program: torch.export.ExportedProgram) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _onnx_bytes(policy: Policy, program: torch.export.ExportedProgram) -> bytes:
    # They warn of packages that are not installed and not needed.
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Inside torch and onnxscript, about their own use of their own interfaces.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        graph = torch.onnx.export(
            program,
            input_names=["observation", *(noise.name for noise in policy.noise)],
            output_names=["actions"],
            dynamo=True,
            verbose=False,
        )
    assert graph is not None
    written: bytes = graph.model_proto.SerializeToString()
    return written


def _torch_run(path: Path) -> Callable[..., Tensor]:
    run: Callable[..., Tensor] = torch.export.load(path).module()
    return run


def _onnx_run(path: Path) -> Callable[..., Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        fed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, fed)[0])

    return run


def _compare(policy: Policy, run: Callable[..., Tensor], path: Path) -> tuple[float, int]:
    """Largest difference from the agent's own actions, and rows with another candidate."""
    span = policy.high - policy.low
    worst, others = 0.0, 0
    for rows in (_CHECKED, 1):  # The programs take any number of rows.
        inputs = policy.example(rows, seed=rows)
        expected, found = policy(*inputs), run(*inputs)
        if found.shape != expected.shape:
            raise BenchError(
                f"{path} gives actions of shape {tuple(found.shape)}, the agent "
                f"{tuple(expected.shape)}"
            )
        differences = ((found - expected).abs() / span).flatten(1).amax(1)
        off = ~(differences <= _TOLERANCE)  # so that not-a-number counts
        others += int(off.sum())
        worst = max(worst, float(differences[~off].amax()) if bool((~off).any()) else 0.0)
    if others > (_OTHER_CHOICES * _CHECKED if policy.candidates > 1 else 0):
        raise BenchError(
            f"{path} was written, but its actions differ from the agent's on {others} of "
            f"{_CHECKED + 1} observations by more than {_TOLERANCE:g} of their range; do not use it"
        )
    return worst, others


def _manifest(
    trained: TrainedPolicy,
    policy: Policy,
    files: dict[str, Path],
    differences: dict[str, float],
) -> dict[str, Any]:
    """Everything that a caller must know, as plain data."""
    noise = {"normal": "standard normal", "uniform": "uniform on [0, 1)"}
    inputs: list[dict[str, Any]] = [
        {"name": "observation", "shape": ["batch", policy.observation_dim], "type": "float32"}
    ]
    inputs += [
        {
            "name": entry.name,
            "shape": ["batch", *entry.shape],
            "type": "float32",
            "distribution": noise[entry.kind],
        }
        for entry in policy.noise
    ]
    return {
        "format": _FORMAT,
        "environment": trained.cell.task_name,
        "agent": trained.cell.agent,
        "variant": trained.variant,
        "seed": trained.cell.seed,
        "phase": trained.phase,
        "step": trained.step,
        "settings": asdict(trained.agent.config),
        "inputs": inputs,
        "output": {
            "name": "actions",
            "shape": ["batch", policy.horizon, policy.action_dim],
            "type": "float32",
            "low": policy.low.tolist(),
            "high": policy.high.tolist(),
        },
        "horizon": policy.horizon,
        "use": (
            "Give observations as the environment returns them and fresh noise for every call. "
            f"Play the {policy.horizon} action(s) of a row one after the other, then call again."
        ),
        "largest_difference_from_agent": differences,
        "files": {
            name: {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for name, path in files.items()
        },
        "packages": package_versions(),
    }
