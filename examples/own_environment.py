"""From data of your own to a deployed policy, in an environment that is in no suite.

A weak, noisy controller is recorded in Gymnasium's inverted pendulum (reward 1 for every step that
the pole stands, at most 1,000). The recording becomes a data set, TRQAM clones it and fine-tunes
the clone, and the result is exported and played by ONNX Runtime in plain Gymnasium: the last part
needs neither the data nor these packages. docs/own-data.md walks through it.

    uv run python examples/own_environment.py --out runs/own      # a few minutes on one core

prints what each part of the way achieves. The same steps on the command line:

    bench data import runs/own/recorded.npz pendulum --env InvertedPendulum-v5 --data-dir runs/own
    bench offline --dataset runs/own/pendulum.npz --env InvertedPendulum-v5 ...
    bench export runs/own/run
"""

import argparse
import json
from pathlib import Path

import gymnasium
import numpy as np
import torch

import bench
from bench.data import import_data

ENVIRONMENT = "InvertedPendulum-v5"
GAINS = np.array([0.5, 5.0, 0.75, 0.75])  # Cart's place, pole's angle, and their speeds.


def record(path: Path, transitions: int, seed: int = 0) -> float:
    """Write transitions of the noisy controller as an npz file; returns its mean return.

    The arrays are those of D4RL. `terminals` marks true ends, after which no value follows;
    `timeouts` marks episodes that were cut off. Actions are recorded as they were applied.
    """
    environment = gymnasium.make(ENVIRONMENT)
    random = np.random.default_rng(seed)
    assert isinstance(environment.action_space, gymnasium.spaces.Box)
    low, high = environment.action_space.low, environment.action_space.high
    keys = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    rows: dict[str, list[object]] = {key: [] for key in keys}
    returns = [0.0]
    observation, _ = environment.reset(seed=seed)
    for step in range(transitions):
        action = np.clip(GAINS @ observation + random.normal(size=1), low, high)
        reached, reward, terminal, timeout, _ = environment.step(action)
        timeout = timeout or step == transitions - 1
        row = (observation, action, reward, reached, terminal, timeout and not terminal)
        for key, value in zip(keys, row, strict=True):
            rows[key].append(value)
        returns[-1] += float(reward)
        observation = reached
        if (terminal or timeout) and step < transitions - 1:
            observation, _ = environment.reset()
            returns.append(0.0)
    environment.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{key: np.array(column) for key, column in rows.items()})  # type: ignore[arg-type]
    return float(np.mean(returns))


class OnnxPolicy:
    """An exported policy, as a program on another machine would play it."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        import onnxruntime

        self.manifest = json.loads((folder / "policy.json").read_text())
        self.session = onnxruntime.InferenceSession(folder / "policy.onnx")
        self.random = np.random.default_rng(seed)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """A chunk of actions (H, A) for one observation."""
        inputs = {"observation": observation[None].astype(np.float32)}
        for noise in self.manifest["inputs"][1:]:
            assert noise["distribution"] == "standard normal"
            drawn = self.random.normal(size=(1, *noise["shape"][1:]))
            inputs[noise["name"]] = drawn.astype(np.float32)
        chunk: np.ndarray = self.session.run(None, inputs)[0][0]
        return chunk


class TorchPolicy(OnnxPolicy):
    """The same, by `torch.export`'s program."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.manifest = json.loads((folder / "policy.json").read_text())
        self.program = torch.export.load(folder / "policy.pt2").module()
        self.random = np.random.default_rng(seed)

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """A chunk of actions (H, A) for one observation."""
        inputs = [observation[None]]
        inputs += [
            self.random.normal(size=(1, *noise["shape"][1:]))
            for noise in self.manifest["inputs"][1:]
        ]
        chunk: torch.Tensor = self.program(*(torch.tensor(i, dtype=torch.float32) for i in inputs))
        actions: np.ndarray = chunk[0].numpy()
        return actions


def play(policy: OnnxPolicy, episodes: int, seed: int = 1) -> list[float]:
    """Returns of episodes in plain Gymnasium, chunks played open loop."""
    environment = gymnasium.make(ENVIRONMENT)
    returns = []
    for episode in range(episodes):
        observation, _ = environment.reset(seed=seed + episode)
        total, ended = 0.0, False
        while not ended:
            for action in policy(observation):
                observation, reward, terminal, timeout, _ = environment.step(action)
                total += float(reward)
                ended = terminal or timeout
                if ended:
                    break
        returns.append(total)
    environment.close()
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--out", type=Path, default=Path("runs/own"))
    parser.add_argument("--transitions", type=int, default=20_000)
    parser.add_argument("--pretrain-steps", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--episodes", type=int, default=20)
    given = parser.parse_args()
    out: Path = given.out

    recorded = record(out / "recorded.npz", given.transitions)
    print(f"recorded: {given.transitions:,} transitions, mean return {recorded:.1f}")
    environment = gymnasium.make(ENVIRONMENT)
    space = environment.action_space
    environment.close()
    assert isinstance(space, gymnasium.spaces.Box)
    bounds = (space.low, space.high)
    source = str(out / "recorded.npz")
    import_data(source, "pendulum", out, action_range=bounds, overwrite=True)
    result = bench.offline(
        dataset=f"{out}/pendulum.npz",
        env=ENVIRONMENT,
        out=out / "run",
        device="cpu",
        pretrain_steps=given.pretrain_steps,
        steps=given.steps,
        evaluate_every=max(1, given.steps // 4),
        episodes=given.episodes,
        set=[
            "actor_hidden=128x128",
            "critic_hidden=128x128",
            "num_critics=2",
            "learning_rate=1e-3",
            "tau=0.01",
            "flow_steps=5",
        ],
    )
    result.show()
    exported = bench.export_policy(out / "run")
    for kind, difference in exported.differences.items():
        print(f"{exported.files[kind]}: actions within {difference:.1e} of the agent's")

    folder = exported.directory
    print(f"\nplayed in plain Gymnasium, {given.episodes} episodes each")
    print(f"recorded controller: mean return {recorded:.1f}")
    for policy in (OnnxPolicy(folder), TorchPolicy(folder)):
        returns = play(policy, given.episodes)
        print(
            f"{type(policy).__name__}: mean return {np.mean(returns):.1f}, "
            f"lowest {min(returns):.0f}, highest {max(returns):.0f}"
        )


if __name__ == "__main__":
    main()
