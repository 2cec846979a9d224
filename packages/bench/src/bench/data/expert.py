"""The experts that collect ant and humanoid data: soft actor-critic on commanded directions.

OGBench trains them by soft actor-critic (arXiv 1812.05905) for 400,000 (ant) and 40 million
(humanoid) steps. The learner is that of RLPD (`bench.agents.RLPD`) without offline data: two
critics with LayerNorm, whose minimum is ``mean - std``.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bench.agents import RLPD, Problem, RLPDConfig, draw
from bench.agents.learning import update_on
from bench.data._errors import DataMissing
from bench.data._locate import folder_option
from bench.data._walkers import BODIES, Body, DirectionTask, expert_folder
from bench.storage import RunLock, load_checkpoint, part, save_checkpoint
from qlearn import RandomStreams, RingBuffer

__all__ = ["Expert", "ExpertProgress", "WalkScore", "measure_expert", "train_expert"]

_HIDDEN = (256, 256)
_CAPACITY = 1_000_000
_WARM_UP = 5_000
_GOAL_DISTANCE, _GOAL_RADIUS = 4.0, 1.0  # metres: a cell of OGBench's mazes, and its goals


@dataclass(frozen=True, slots=True)
class WalkScore:
    """How well an expert walks, over episodes of 1,000 steps on open ground.

    Attributes:
        goals: reached per episode, each 4 m (a maze's cell) in a random direction from the last.
        speed: metres per step along the wanted direction.
        upright: share of steps on its feet.
    """

    goals: float
    speed: float
    upright: float

    def __str__(self) -> str:
        return (
            f"{self.goals:.2f} goals an episode, {self.speed:.3f} m a step, "
            f"{self.upright:.0%} upright"
        )


@dataclass(frozen=True, slots=True)
class ExpertProgress:
    """What `train_expert` tells: environment steps done, steps in all, seconds, and the score."""

    steps: int
    total: int
    seconds: float
    score: WalkScore

    def __str__(self) -> str:
        return f"{self.steps:,} of {self.total:,} steps, {self.seconds:,.0f} s: {self.score}"


class Expert:
    """A trained walker.

    Args:
        body: which.
        agent: its learner.
        steps: that it was trained for.
    """

    def __init__(self, body: Body, agent: RLPD, steps: int) -> None:
        self.body, self.agent, self.steps = body, agent, steps
        state = sorted(agent.actor.state_dict().items())
        content = b"".join(tensor.contiguous().numpy().tobytes() for _, tensor in state)
        self.fingerprint = hashlib.sha256(content).hexdigest()[:16]
        network = agent.actor.network
        # The first columns of the output are the mean, the others its spread (`GaussianActor`).
        self._layers = [
            (kernel[0].detach().numpy(), bias[0].detach().numpy())
            for kernel, bias in zip(network.kernels, network.biases, strict=True)
        ]
        kernel, bias = self._layers[-1]
        self._layers[-1] = kernel[:, : body.action_dim].copy(), bias[: body.action_dim].copy()

    @classmethod
    def load(cls, data_dir: Path, name: str) -> "Expert":
        """The expert of a data folder.

        Raises:
            DataMissing: there is none.
            CheckpointError: it is damaged.
        """
        body = BODIES[name]
        checkpoint = load_checkpoint(expert_folder(data_dir, name))
        if checkpoint is None:
            where = folder_option(data_dir)
            raise DataMissing(
                f"{name} data are collected by an expert, and {data_dir} has none: train one with "
                f"`bench data expert {name}{where}`, or ask for data of a random policy "
                "(`bench data generate --policy random`)"
            )
        agent = _learner(body, RandomStreams([0]))
        agent.load_state_dict(part(checkpoint.tensors, "agent."))
        return cls(body, agent, checkpoint.step)

    def act(
        self, observation: Float[np.ndarray, " O"], direction: Float[np.ndarray, "2"]
    ) -> Float[np.ndarray, " A"]:
        """The most likely action for a body (its position left out) and a unit direction."""
        hidden = np.concatenate([observation, direction], dtype=np.float32)
        # In NumPy: for one row, torch's bookkeeping would cost as much as the simulator step.
        for kernel, bias in self._layers[:-1]:
            hidden = _gelu(hidden @ kernel + bias)
        kernel, bias = self._layers[-1]
        action: np.ndarray = np.tanh(hidden @ kernel + bias)
        return action


def _gelu(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """In the tanh form, as the networks of `qlearn` have it."""
    bent: np.ndarray = np.tanh(math.sqrt(2.0 / math.pi) * x * (1.0 + 0.044715 * x * x))
    return 0.5 * x * (1.0 + bent)


def train_expert(
    name: str,
    data_dir: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    walkers: int = 8,
    updates_per_step: float = 0.25,
    checkpoint_every: int = 20_000,
    progress: Callable[[ExpertProgress], None] = lambda _: None,
) -> Expert:
    """Train a walker, or go on training it; the same call continues.

    Args:
        name: `ant` or `humanoid`.
        data_dir: data folder; the expert lies in its subfolder `experts`.
        steps: environment steps in all, by default OGBench's number.
        seed: of the first call.
        walkers: environments that are stepped in turn.
        updates_per_step: gradient steps per environment step.
        checkpoint_every: environment steps between checkpoints, which are measured and told.
        progress: called then.

    Raises:
        ValueError: unknown name or impossible numbers.
        RunLockedError: another process trains it.
    """
    if name not in BODIES:
        raise ValueError(f"no expert {name!r}; known: {', '.join(BODIES)}")
    body = BODIES[name]
    total = body.published_steps if steps is None else steps
    if min(total, walkers, checkpoint_every) < 1 or not updates_per_step > 0.0:
        raise ValueError(
            "steps, walkers and checkpoint-every must be at least 1 and updates-per-step positive, "
            f"got {total}, {walkers}, {checkpoint_every} and {updates_per_step}"
        )
    folder = expert_folder(data_dir, name)
    with RunLock(folder, alternative="another folder with --data-dir"):
        practice = _Practice(body, seed, walkers)
        practice.restore(folder)
        began, before = time.monotonic(), practice.seconds
        while practice.steps < total:
            reached = practice.steps // checkpoint_every
            practice.advance(updates_per_step)
            if practice.steps // checkpoint_every > reached or practice.steps >= total:
                practice.seconds = before + time.monotonic() - began
                practice.save(folder)
                score = measure_expert(practice.expert, episodes=4)
                progress(ExpertProgress(practice.steps, total, practice.seconds, score))
        return practice.expert


def measure_expert(expert: Expert, *, episodes: int = 10, seed: int = 1) -> WalkScore:
    """Let an expert walk from goal to goal on open ground."""
    random = np.random.default_rng(seed)
    goals, along, upright, length = 0, 0.0, 0, 1_000
    for episode in range(episodes):
        task = DirectionTask(expert.body, seed + episode)
        task.reset()
        goal = task.position + _step(random)
        for _ in range(length):
            way = goal - task.position
            way /= np.linalg.norm(way) + 1e-6
            before = task.position
            _, _, _, up = task.step(expert.act(task.observe()[:-2], way))
            along += float((task.position - before) @ way)
            upright += up
            if np.linalg.norm(goal - task.position) < _GOAL_RADIUS:
                goals, goal = goals + 1, goal + _step(random)
    played = episodes * length
    return WalkScore(goals / episodes, along / played, upright / played)


def _step(random: np.random.Generator) -> Float[np.ndarray, "2"]:
    drawn = random.standard_normal(2)
    return _GOAL_DISTANCE * drawn / np.linalg.norm(drawn)


def _learner(body: Body, streams: RandomStreams) -> RLPD:
    config = RLPDConfig(
        actor_hidden=_HIDDEN,
        critic_hidden=_HIDDEN,
        num_critics=2,
        rho=1.0,
        discount=0.99,
        learning_rate=1e-3,
    )
    return RLPD(config, Problem(body.observation_dim, body.action_dim, 1), streams)


class _Practice:
    """The state of training: learner, replay, walkers."""

    def __init__(self, body: Body, seed: int, walkers: int) -> None:
        self.body, self.steps, self.updates, self.seconds = body, 0, 0, 0.0
        self.streams = RandomStreams([seed])
        self.agent = _learner(body, self.streams)
        capacity = min(_CAPACITY, body.published_steps)
        self.ring = RingBuffer(
            1, capacity, body.observation_dim, body.action_dim, horizon=1, discount=0.99
        )
        self.tasks = [DirectionTask(body, 1000 * seed + index) for index in range(walkers)]
        for task in self.tasks:
            task.reset()

    @property
    def expert(self) -> Expert:
        """What has been learned so far."""
        return Expert(self.body, self.agent, self.steps)

    def advance(self, updates_per_step: float) -> None:
        """One step of every walker, and the updates that are due."""
        seen = torch.from_numpy(np.stack([task.observe() for task in self.tasks])).unsqueeze(0)
        if self.steps < _WARM_UP:
            actions = 2.0 * self.streams.uniform(len(self.tasks), self.body.action_dim) - 1.0
        else:
            noise = draw(self.streams, self.agent.acting_noise(len(self.tasks)))
            actions = self.agent.act(seen, noise)
        for task, before, action in zip(self.tasks, seen[0], actions[0], strict=True):
            reached, reward, cut, _ = task.step(action.numpy())
            self.ring.add(
                before.unsqueeze(0),
                action.unsqueeze(0),
                torch.tensor([reward]),
                torch.ones(1),  # an episode is cut off, never over
                torch.tensor([cut]),
                torch.from_numpy(reached).unsqueeze(0),
            )
            if cut:
                task.reset()
        self.steps += len(self.tasks)
        due = int(max(0, self.steps - _WARM_UP) * updates_per_step) - self.updates
        for _ in range(due):
            batch = self.ring.sample(self.streams, 256)
            update_on(self.agent, batch, self.streams)
        self.updates += max(0, due)

    def save(self, folder: Path) -> None:
        """Write a checkpoint; walkers begin new episodes after it is loaded."""
        parts = {
            "agent": self.agent.state_dict(),
            "learner": self.agent.learner.state_dict(),
            "ring": {name: self._filled(value) for name, value in self.ring.state_dict().items()},
            "streams": self.streams.state_dict(),
        }
        tensors = {f"{p}.{n}": value for p, state in parts.items() for n, value in state.items()}
        metadata = {"updates": self.updates, "seconds": self.seconds}
        save_checkpoint(folder, self.steps, tensors, metadata, keep=1)

    def _filled(self, stored: Tensor) -> Tensor:
        """The part of a column of the ring that holds anything."""
        return stored[:, : self.ring.size] if stored.dim() > 1 else stored

    def restore(self, folder: Path) -> None:
        """Go on from the last checkpoint, if there is one."""
        checkpoint = load_checkpoint(folder)
        if checkpoint is None:
            return
        self.agent.load_state_dict(part(checkpoint.tensors, "agent."))
        self.agent.learner.load_state_dict(part(checkpoint.tensors, "learner."))
        self.streams.load_state_dict(part(checkpoint.tensors, "streams."))
        columns = self.ring.state_dict()
        for name, saved in part(checkpoint.tensors, "ring.").items():
            if saved.dim() > 1:
                columns[name][:, : saved.shape[1]] = saved
            else:
                columns[name] = saved
        self.ring.load_state_dict(columns)
        self.steps = checkpoint.step
        self.updates = checkpoint.metadata["updates"]
        self.seconds = checkpoint.metadata["seconds"]
