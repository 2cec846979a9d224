"""Exported programs give the agent's actions, in the environment's units."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.agents import AGENTS, Agent, Problem
from bench.cli import main
from bench.data import generate
from bench.errors import BenchError
from bench.export import Policy, TrainedPolicy, export_policy, find_policy
from bench.export._write import _compare
from bench.storage import load_checkpoint
from bench.training.cells import Cell
from bench.training.domain_record import DomainRecord
from qlearn import RandomStreams

PROBLEM = Problem(observation_dim=4, action_dim=2, horizon=3)
RECORD = DomainRecord(
    "Somewhere-v0", 4, 2, 3, (1.0, -2.0, 0.0, 5.0), (2.0, 0.1, 1.0, 3.0), (-3.0, 0.0), (1.0, 0.5)
)
SMALL = {"actor_hidden": (16, 16), "critic_hidden": (16, 16), "num_critics": 2, "flow_steps": 3}


def trained(name: str, **settings: object) -> TrainedPolicy:
    entry = AGENTS[name]
    known = {k: v for k, v in SMALL.items() if k in entry.config.__dataclass_fields__}
    agent = entry.agent(entry.config(**(known | settings)), PROBLEM, RandomStreams([3]))
    return TrainedPolicy(agent, RECORD, Cell("d", 0, "Somewhere-v0", name, 0), "offline", 7)


def by_hand(agent: Agent, observation: Tensor, noise: dict[str, Tensor]) -> np.ndarray:
    """Normalise, act, scale, clip: each written down again."""
    rows = (observation - torch.tensor(RECORD.shift)) / torch.tensor(RECORD.scale)
    flat = agent.act(rows.unsqueeze(0), {name: n.unsqueeze(0) for name, n in noise.items()})
    unit = flat.squeeze(0).detach().numpy().reshape(-1, 3, 2).astype(np.float64)
    low, high = np.array(RECORD.action_low), np.array(RECORD.action_high)
    actions: np.ndarray = np.clip(low + (unit + 1) / 2 * (high - low), low, high)
    return actions


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name, entry in AGENTS.items() if entry.exportable),
        ("trqam", {"num_action_samples": 4}),
    ],
)
def test_both_programs_give_the_agents_actions(
    name: str, settings: dict[str, object], tmp_path: Path
) -> None:
    import onnxruntime

    policy = trained(name, **settings)
    done = export_policy(policy, tmp_path)
    program = torch.export.load(done.files["pt2"]).module()
    session = onnxruntime.InferenceSession(done.files["onnx"])
    manifest = json.loads(done.files["json"].read_text())
    assert [entry.name for entry in session.get_inputs()] == [e["name"] for e in manifest["inputs"]]
    shapes = policy.agent.acting_noise(1)
    source = torch.Generator().manual_seed(5)
    for batch in (1, 3, 40):
        observation = torch.randn(batch, 4, generator=source) * 3
        noise = {
            key: torch.randn(batch, *entry.shape[1:], generator=source)
            for key, entry in shapes.items()
        }
        expected = by_hand(policy.agent, observation, noise)
        inputs = (observation, *noise.values())
        names = [entry["name"] for entry in manifest["inputs"]]
        fed = {key: tensor.numpy() for key, tensor in zip(names, inputs, strict=True)}
        found = {"pt2": program(*inputs).detach().numpy(), "onnx": session.run(None, fed)[0]}
        for actions in found.values():
            assert actions.shape == expected.shape == (batch, 3, 2)
            assert actions.dtype == np.float32
            # A near tie between candidates may be broken otherwise; none is at these seeds.
            np.testing.assert_allclose(actions, expected, atol=2e-5)
        if batch == 40:  # What was compared is no constant.
            assert expected.reshape(40, -1).std(0).min() > 1e-3
    for entry in manifest["files"].values():
        digest = hashlib.sha256((tmp_path / entry["file"]).read_bytes()).hexdigest()
        assert digest == entry["sha256"]
    assert manifest["output"]["low"] == [-3.0, 0.0]
    assert manifest["horizon"] == 3


def test_what_acting_does_not_use_is_left_out(tmp_path: Path) -> None:
    one, many = (
        export_policy(trained("trqam", num_critics=n), tmp_path / str(n), ["pt2"]) for n in (1, 50)
    )
    sizes = [done.files["pt2"].stat().st_size for done in (one, many)]
    assert sizes[1] < 1.02 * sizes[0]  # 49 more critics would be 80 kB.


def test_guidance_by_gradients_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="follows gradients of its critic"):
        export_policy(trained("cgql-l"), tmp_path / "policy", ["pt2"])
    assert not (tmp_path / "policy").exists()


def test_a_program_that_differs_is_not_passed_off_as_the_policy() -> None:
    policy = Policy(trained("trqam"))
    worst, others = _compare(policy, lambda *inputs: policy(*inputs) + 1e-5, Path("p"))
    assert others == 0
    assert 1.9e-6 < worst < 2.1e-5  # 1e-5 of an action that spans 4, and of one that spans 0.5.
    with pytest.raises(BenchError, match="65 of 65 observations"):
        _compare(policy, lambda *inputs: policy(*inputs) + 1e-2, Path("p"))
    with pytest.raises(BenchError, match="do not use it"):
        _compare(policy, lambda *inputs: policy(*inputs) * float("nan"), Path("p"))
    with pytest.raises(BenchError, match="actions of shape"):
        _compare(policy, lambda *inputs: policy(*inputs)[:, :1], Path("p"))


def test_without_onnx_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"install trqam-bench\[export\], or give --formats pt2"):
        export_policy(trained("bc"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("quick")
    generate("pointmaze-medium-navigate-5k-v0", place, transitions=5_000, processes=1)
    command = ["offline", "--suite", "quick", "--preset", "smoke", "--seeds", "2"]
    where = ["--device", "cpu", "--data-dir", str(place), "--out", str(place / "run")]
    assert main([*command, *where]) == 0
    return place / "run"


def test_a_run_in_a_pack_is_found(run: Path) -> None:
    (folder,) = run.glob("packs/*--trqam--*")
    checkpoint = load_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    cells = checkpoint.metadata["cells"]
    assert len(cells) == 4
    for task, text in (("task1-v0", "task1-v0"), ("task2-v0", "2"), ("task2-v0", "task2")):
        for seed in (0, 1):
            policy = find_policy(run, task=text, seed=seed)
            replica = cells.index(str(policy.cell))
            assert policy.cell.task_name.endswith(task)
            assert (policy.phase, policy.step) == ("offline", 20)
            for name, value in policy.agent.state_dict().items():
                whole = checkpoint.tensors[f"agent.{name}"]
                assert value.equal(whole if whole.dim() == 0 else whole[replica : replica + 1])
    clones = [
        find_policy(run, agent="bc", task=task, seed=1).agent.state_dict()
        for task in ("task1-v0", "task2-v0")
    ]
    assert all(clones[0][name].equal(value) for name, value in clones[1].items())


def test_the_command_says_what_there_is(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(run), "--seed", "1"]) == 2
    message = capsys.readouterr().err
    tasks = [f"pointmaze-medium-navigate-singletask-task{task}-v0" for task in (1, 2)]
    assert message.endswith(
        f"several policies fit in {run}; choose one: --task {' or '.join(tasks)}\n"
    )
    assert main(["export", str(run), "--agent", "fql", "--task", "7"]) == 2
    message = capsys.readouterr().err
    assert (
        f"no policy in {run} fits --agent fql --task 7; there are --agent bc or trqam;" in message
    )
    assert f"--task {' or '.join(tasks)}; --seed 0 or 1; --phase pretrain or offline" in message
    assert main(["export", str(run.parent)]) == 1
    assert "is no run directory" in capsys.readouterr().err
    assert main(["export", str(run), "--seed", "1", "--task", "task2-v0", "--formats", "pt2"]) == 0
    assert "of the agent's" in capsys.readouterr().out
    (folder,) = (run / "export").iterdir()
    assert {path.name for path in folder.iterdir()} == {"policy.pt2", "policy.json"}
