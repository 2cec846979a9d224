"""`bench.FineTuner`: a user's own policy, from data to a better policy."""

import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.cli import main
from bench.errors import BenchError, CheckpointError
from bench.results import TIMING_COLUMNS
from bench.storage import load_checkpoint, part
from qlearn import Learner

H, A, SIZE = 2, 1, 3
SETTINGS = {"num_critics": 2, "critic_hidden": (16, 16), "flow_steps": 3}


class Policy(nn.Module):
    """A small velocity model as a user has it: an encoder, dropout, a head."""

    def __init__(self, size: int = SIZE, chunk: tuple[int, int] = (H, A)) -> None:
        super().__init__()
        self.chunk = chunk
        self.encoder = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Dropout(0.5))
        self.head = nn.Sequential(nn.Linear(8 + chunk[0] * chunk[1] + 1, 16), nn.Tanh())
        self.out = nn.Linear(16, chunk[0] * chunk[1])

    def encode(self, observations: Tensor) -> Tensor:
        out: Tensor = self.encoder(observations)
        return out

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        out: Tensor = self.out(self.head(torch.cat([context, x.flatten(1), t[:, None]], -1)))
        return out.unflatten(-1, self.chunk)


def policy() -> Policy:
    torch.manual_seed(0)
    return Policy()


def arrays(episodes: int = 6, length: int = 20, size: int = SIZE) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = episodes * (length + 1)
    return {
        "observations": rng.normal(size=(rows, size)).astype(np.float32),
        "actions": rng.uniform(-1, 1, (rows, A)).astype(np.float32),
        "rewards": rng.normal(size=rows).astype(np.float32),
        "terminals": (np.arange(rows) + 1) % (length + 1) == 0,
        "masks": np.ones(rows, bool),
    }


def tuner(start: Any = None, data: Any = None, **options: Any) -> bench.FineTuner:
    given = {"chunk_length": H, "settings": SETTINGS, "batch_size": 8, "device": "cpu"} | options
    return bench.FineTuner(policy() if start is None else start, data or arrays(), **given)


def fit(mine: bench.FineTuner, out: Path, steps: int = 6, **options: Any) -> Any:
    given = {"checkpoint_every": 4, "log_every": 2, "progress": "none"} | options
    return mine.fit(steps, out=out, **given)


def tensors(out: Path, pack: str = "*--trqam--*") -> dict[str, Tensor]:
    (place,) = out.glob(f"packs/{pack}/checkpoints")
    checkpoint = load_checkpoint(place)
    assert checkpoint is not None
    return checkpoint.tensors


def judge(policy: bench.LoadedPolicy) -> dict[str, list[float]]:
    chunks = policy(np.zeros((4, SIZE), np.float32))
    assert chunks.shape == (4, H, A)
    return {"returns": chunks[:, 0, 0].tolist(), "successes": [0, 1, 1, 1]}


def test_a_policy_is_improved_resumed_saved_and_loaded(tmp_path: Path) -> None:
    start = policy()
    start.train()
    before = {name: value.clone() for name, value in start.state_dict().items()}
    mine = tuner(start, kl_budget=0.3)
    result = fit(mine, tmp_path / "whole", 8, evaluate=judge, evaluate_every=4)
    assert result.complete
    assert result.cells["success_rate"].to_list() == [0.75]
    assert result.curves["step"].to_list() == [4, 8]
    assert {"path_kl", "lambda", "critic_loss"} <= set(result.metrics["metric"])
    assert set(result.metrics.filter(pl.col("metric") == "kl_budget")["value"].round(6)) == {0.3}

    improved = mine.policy.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in improved.items())
    saved = tmp_path / "whole" / "policy.safetensors"
    assert mine.save() == saved
    from safetensors.torch import load_file

    fresh = Policy()
    fresh.load_state_dict(load_file(saved))
    loaded = bench.load_policy(tmp_path / "whole", policy=Policy, noise_seed=3)
    same = bench.load_policy(tmp_path / "whole", policy=start, noise_seed=3)
    observation = np.ones(SIZE, np.float32)
    assert np.array_equal(loaded(observation), same(observation))
    for name, value in improved.items():
        assert torch.equal(value, loaded.module.state_dict()[name])
        assert torch.equal(value, fresh.state_dict()[name])
    with pytest.raises(ValueError, match="fine-tuned a policy of your own, Policy; to make it"):
        bench.load_policy(tmp_path / "whole")
    with pytest.raises(CheckpointError, match="encoder"):
        bench.load_policy(tmp_path / "whole", policy=lambda: Policy(SIZE + 1))

    # Stopped at 4 and gone on from a fresh object: the same bits. Longer again: from 8.
    fit(tuner(policy(), kl_budget=0.3), tmp_path / "parts", 4, evaluate=judge, evaluate_every=4)
    again = tuner(policy(), kl_budget=0.3)
    fit(again, tmp_path / "parts", 8, evaluate=judge, evaluate_every=4)
    expected = tensors(tmp_path / "whole")
    for name, value in tensors(tmp_path / "parts").items():
        assert torch.equal(value, expected[name]), name
    with pytest.raises(ValueError, match="holds a run with other settings"):
        fit(tuner(Policy(), kl_budget=0.3), tmp_path / "parts", 8)


@pytest.mark.parametrize("method", ["sqam", "qam", "fql"])
def test_other_methods_and_no_evaluation(tmp_path: Path, method: str) -> None:
    mine = tuner(policy, method=method, clone_steps=2, learning_rates={"encoder": 0.0})
    result = fit(mine, tmp_path / "runs" / "own", 3)
    assert set(result.metrics["agent"]) == {"bc", method}
    # Trained to its end, though nothing says how good it is.
    assert result.complete
    assert result.table.coverage.complete
    assert result.cells["evaluations"].to_list() == [0, 0]
    assert result.tasks["success"].to_list() == [None, None]
    result.show()
    assert repr(result) == f"RunResult({tmp_path / 'runs' / 'own'}: 1/1 tasks, 2/2 runs)"
    state = tensors(tmp_path / "runs" / "own", f"*--{method}--*")
    flow = "flow" if method == "fql" else "fast"
    for name, value in policy().encoder.state_dict().items():
        assert torch.equal(part(state, f"agent.{flow}.module.encoder.")[name], value)
    assert not torch.equal(state[f"agent.{flow}.module.out.bias"], policy().out.bias)
    if method == "fql":
        with pytest.raises(ValueError, match="does not act by a flow alone"):
            _ = mine.policy
    else:
        assert isinstance(mine.policy, Policy)


@pytest.fixture(scope="module")
def hill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random play in an environment whose actions lie in [-1, 1]."""
    environment = gymnasium.make("MountainCarContinuous-v0", max_episode_steps=30)
    environment.action_space.seed(0)
    names = ("observations", "actions", "rewards", "terminals")
    rows: dict[str, list[Any]] = {name: [] for name in names}
    for episode in range(4):
        observation, _ = environment.reset(seed=episode)
        for step in range(31):
            action = environment.action_space.sample()
            for name, value in zip(rows, (observation, action, 0.0, step == 30), strict=True):
                rows[name].append(value)
            if step < 30:
                observation, reward, *_ = environment.step(action)
                rows["rewards"][-1] = reward
    file = tmp_path_factory.mktemp("data") / "hill.npz"
    np.savez(file, **{n: np.array(v, np.float32) for n, v in rows.items()})
    return file


def test_with_our_perceptron_the_numbers_are_those_of_bench_offline(
    hill: Path, tmp_path: Path
) -> None:
    settings = {"actor_hidden": (16, 16), **SETTINGS}
    texts = ["actor_hidden=16,16", "num_critics=2", "critic_hidden=16,16", "flow_steps=3"]
    shared = {"episodes": 1, "log_every": 2, "checkpoint_every": 4, "evaluate_every": 3}
    environment = "MountainCarContinuous-v0"
    bench.offline(
        dataset=str(hill), env=environment, chunk_length=H, pretrain_steps=3, steps=6,
        set=[*texts, "reference=frozen"], kl_budget=0.3, batch_size=8, device="cpu", processes=1,
        out=tmp_path / "offline", progress="none", **shared,
    )  # fmt: skip
    clone = bench.load_policy(tmp_path / "offline", agent="bc").module
    mine = bench.FineTuner(
        clone, hill, kl_budget=0.3, chunk_length=H, batch_size=8, device="cpu",
        settings=settings | {"dual": "descend"},
    )  # fmt: skip
    mine.fit(6, out=tmp_path / "tuner", evaluate=environment, progress="none", **shared)
    expected = tensors(tmp_path / "offline")
    found = tensors(tmp_path / "tuner")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    tables = []
    for name in ("offline", "tuner"):
        for kind in ("training", "evaluations"):
            (file,) = (tmp_path / name).glob(f"packs/*--trqam--*/{kind}.parquet")
            table = pl.read_parquet(file).drop(*TIMING_COLUMNS, strict=False)
            tables.append(table.drop("protocol_fingerprint", strict=False))
    assert tables[0].equals(tables[2])
    assert tables[1].equals(tables[3])


def test_an_environment_at_hand_is_played_in_this_process(tmp_path: Path) -> None:
    class Line(gymnasium.Env[np.ndarray, np.ndarray]):
        played = 0

        def reset(self, **options: Any) -> Any:
            self.step_number = 0
            return np.full(SIZE, options["seed"], np.float32), {}

        def step(self, action: np.ndarray) -> Any:
            Line.played += 1
            self.step_number += 1
            assert action.shape == (A,)
            ended = self.step_number == 5
            return np.zeros(SIZE, np.float32), 1.0, False, ended, {"success": ended}

    result = fit(tuner(), tmp_path, 2, evaluate=Line(), episodes=3)
    assert Line.played == 15
    row = result.cells.row(0, named=True)
    assert (row["success_rate"], row["return_mean"], row["length_mean"]) == (1.0, 5.0, 5.0)


def test_padding_is_played_as_zero_wherever_a_policy_acts(tmp_path: Path) -> None:
    mine = tuner(policy(), arrays(), action_mask=[[1], [0]])
    seen: list[Any] = []
    fit(mine, tmp_path, 2, evaluate=lambda p: seen.append(p(np.zeros(SIZE))) or 0.0)
    chunks = [*seen, bench.load_policy(tmp_path, policy=Policy)(np.zeros((5, SIZE)))]
    with mine.online(4, warm_up=3) as live:
        played = []
        for _ in range(2):
            played.append(live.act(np.zeros(SIZE)))
            live.observe(np.zeros(SIZE), 0.0, False)
    for chunk in (*chunks, np.stack(played)):
        assert np.all(chunk[..., 1, :] == 0.0)
        assert np.all(chunk[..., 0, :] != 0.0)


class Fixed(nn.Module):
    """Samples one chunk, whatever the noise and the observation."""

    def __init__(self) -> None:
        super().__init__()
        self.chunk = nn.Parameter(torch.tensor([[-0.5], [0.75]]))

    def velocity(self, context: Tensor, x: Tensor, t: Tensor) -> Tensor:
        return (self.chunk - x) / (1 - t[:, None, None]).clamp_min(1e-3)


@pytest.mark.parametrize("stored", [False, True])
def test_actions_are_played_in_the_units_of_the_data(stored: bool, tmp_path: Path) -> None:
    raw = arrays()
    raw["actions"] = 3.0 + 2.0 * raw["actions"]  # from 1 to 5
    data = bench.load_data(raw, action_range=(1, 5), store=tmp_path / "data" if stored else None)
    mine = tuner(Fixed(), tmp_path / "data" if stored else data, learning_rates={"chunk": 0.0})
    seen: list[Any] = []
    fit(mine, tmp_path / "run", 1, evaluate=lambda p: seen.append(p(np.zeros(SIZE))) or 0.0)
    loaded = bench.load_policy(tmp_path / "run", policy=Fixed)
    with mine.online(4, warm_up=3) as live:
        played = []
        for _ in range(2):
            played.append(live.act(np.zeros(SIZE)))
            live.observe(np.zeros(SIZE), 0.0, False)
    for chunk in (*seen, loaded(np.zeros(SIZE)), np.stack(played)):
        np.testing.assert_allclose(chunk, [[2.0], [4.5]], atol=1e-5)
    with pytest.raises(ValueError, match="other settings"):  # the same numbers in other units
        fit(tuner(Fixed(), arrays()), tmp_path / "run", 1)


def test_actions_that_would_be_clipped_are_refused(tmp_path: Path) -> None:
    raw = arrays()
    raw["actions"] = 3.0 * raw["actions"]
    wild = bench.load_data(raw, action_range="as_stored")
    with pytest.raises(ValueError, match=r"actions from -\d.* to \d.*action_range=\(low, high\)"):
        fit(tuner(policy(), wild), tmp_path, 1)


class Machine:
    """A robot of the user's: a point on a line, whose episodes are numbered by the loop."""

    def reset(self, episode: int) -> np.ndarray:
        self.place, self.left = np.sin(episode), 5
        return self.seen()

    def seen(self) -> np.ndarray:
        return np.array([self.place, self.left, 1.0])

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        self.place += 0.3 * float(action[0])
        self.left -= 1
        return self.seen(), -abs(self.place), abs(self.place) < 0.05, self.left == 0


def live_loop(live: Any, until: int, at: Any = None) -> None:
    machine = Machine()
    while live.steps < until:
        observation, ended = machine.reset(live.episodes), False
        while not ended and live.steps < until:
            observation, reward, terminated, truncated = machine.step(live.act(observation))
            live.observe(observation, reward, terminated, truncated)
            ended = terminated or truncated
            if at is not None and not ended:
                at(live.steps)


def test_a_live_loop_learns_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    def begun(out: Path) -> bench.FineTuner:
        mine = tuner(policy(), arrays(), kl_budget=0.3)
        fit(mine, out, 4)
        return mine

    options: dict[str, Any] = {"log_every": 5, "checkpoint_every": 6, "warm_up": 3}
    mine = begun(tmp_path / "whole")
    before = mine.policy.state_dict()

    killed_at = []

    def kill(step: int) -> None:
        # What a kill -9 in the middle of an episode leaves on the disk.
        if step > 12 and not killed_at:
            killed_at.append(step)
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    with mine.online(20, **options) as live:
        live_loop(live, 20, kill)
        assert live.finished
        assert {"episodes", "path_kl", "episode_return"} <= set(live.metrics)
        with pytest.raises(BenchError, match="the phase of 20 steps is over"):
            live.act(np.zeros(SIZE))
    after = mine.policy.state_dict()
    assert any(not torch.equal(after[name], value) for name, value in before.items())

    other = begun(tmp_path / "killed")
    with other.online(20, **options) as again:
        assert 6 <= again.steps < killed_at[0]
        live_loop(again, 20)
    expected = tensors(tmp_path / "whole", "*--online")
    found = tensors(tmp_path / "killed", "*--online")
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    # What was left in the middle counts as cut short; a longer phase goes on.
    with other.online(25, **options) as longer:
        assert longer.steps == 20
        live_loop(longer, 25)
    loaded = bench.load_policy(tmp_path / "killed", policy=Policy)
    assert loaded.trained.phase == "online"


def test_a_step_that_is_broken_off_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tuner()
    fit(mine, tmp_path, 1)
    with mine.online(20, warm_up=3, checkpoint_every=5) as live:
        live_loop(live, 7)
    saved = tensors(tmp_path, "*--online")
    apply = Learner.apply

    def interrupted(learner: Learner, gradients: Any) -> None:
        apply(learner, gradients)
        raise KeyboardInterrupt

    def interrupted_loop() -> None:
        with mine.online(20, warm_up=3) as live:
            monkeypatch.setattr(Learner, "apply", interrupted)
            live_loop(live, 20)

    with pytest.raises(KeyboardInterrupt):
        interrupted_loop()
    found = tensors(tmp_path, "*--online")
    assert all(torch.equal(value, saved[name]) for name, value in found.items())


def test_what_a_live_loop_says_wrong_is_refused(tmp_path: Path) -> None:
    mine = tuner()
    with pytest.raises(ValueError, match="call fit"):
        mine.online()
    fit(mine, tmp_path, 1)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        mine.online(0)
    with mine.online(9) as live:
        with pytest.raises(ValueError, match=r"observe.. without act"):
            live.observe(np.zeros(SIZE), 0.0, False)
        with pytest.raises(ValueError, match="one observation of 3 finite numbers"):
            live.act(np.zeros(SIZE + 1))
        live.act(np.zeros(SIZE))
        with pytest.raises(ValueError, match="called twice"):
            live.act(np.zeros(SIZE))
        for reward, says in ((np.nan, "nan"), (None, "None; expected one"), ([1, 2], "one number")):
            with pytest.raises(ValueError, match=f"reward is .*{says}"):
                live.observe(np.zeros(SIZE), reward, False)
        live.observe(np.zeros(SIZE), 1.0, True)
        with pytest.raises(BenchError, match="in use"):
            mine.online(9)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "trquam"}, "unknown method 'trquam'; perhaps you meant trqam"),
        ({"method": "rebrac"}, "does not start from a flow policy"),
        ({"method": "fql", "reference": "ema"}, "has no choice of reference"),
        ({"settings": {"reference": "ema"}}, "reference is an argument of its own"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        tuner(**options)


@pytest.mark.parametrize(
    ("data", "options", "says"),
    [
        ({"rewards": None}, {}, "there are no rewards"),
        ({"rewards": np.zeros((126, 2))}, {}, "rewards"),
        ({"rewards": np.full(126, np.nan)}, {}, r"'rewards'.*finite"),
        ({"observations": np.zeros((126, 4))}, {}, "cannot be asked about the data: RuntimeError"),
        ({}, {"chunk_length": 30}, "longer than every episode of arrays, the longest of which has"),
        ({}, {"settings": {"hidden": 3}}, "hidden"),
        ({}, {"kl_budget": -1.0}, "above 0"),
    ],
)
def test_bad_data_and_settings_are_refused_before_training(
    data: dict[str, Any], options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    given = {n: v for n, v in (arrays() | data).items() if v is not None}
    with pytest.raises((ValueError, BenchError), match=says):
        fit(tuner(policy(), given, **options), tmp_path, 2)
    assert not list(tmp_path.glob("packs/*/checkpoints/*"))
    with pytest.raises(ValueError, match=r"--steps must be a whole number, got 1\.5"):
        fit(tuner(), tmp_path, 1.5)  # type: ignore[arg-type]
    # Nothing is lost: the same directory takes the run that was meant.
    fit(tuner(), tmp_path, 1)


MODULE = """
import torch
from torch import nn


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2 + 2 + 1, 2)

    def forward(self, observations, x, t):
        out = self.layer(torch.cat([observations, x.flatten(1), 1 - t[:, None]], -1))
        return -out.reshape(x.shape)
"""


def test_the_command_line_takes_a_policy_by_name(
    hill: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_small_policy.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = [
        "offline", "--dataset", str(hill), "--env", "MountainCarContinuous-v0",
        "--chunk-length", "2",
        "--policy", "my_small_policy:Small", "--convention", "noise_at_one", "--seeds", "2",
        "--preset", "smoke", "--device", "cpu", "--out", "runs/small",
    ]  # fmt: skip
    assert main(command) == 0
    run = Path("runs/small")
    states = [tensors(run, f"*--trqam--seeds-{seed}") for seed in (0, 1)]
    assert not torch.equal(*(s["agent.fast.module.layer.weight"] for s in states))
    for seed in (0, 1):
        loaded = bench.load_policy(run, seed=seed, policy="my_small_policy:Small")
        weight = loaded.module.state_dict()["layer.weight"]
        assert torch.equal(weight, states[seed]["agent.fast.module.layer.weight"])
        assert loaded(np.zeros(2)).shape == (2, 1)
    assert main([*command[:-4], "--convention", "data_at_one", *command[-4:]]) == 2
