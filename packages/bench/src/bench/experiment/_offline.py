"""The request of the offline phase, its fields by subject."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.experiment._execution import PrecisionChoice
from bench.experiment._fields import protocol_option, recorded_as, setting_option
from bench.recorded import FORMER

__all__ = ["OfflineRequest"]


@dataclass(frozen=True)
class _Tasks:
    """Which tasks, and how many runs of each.

    Attributes:
        suite: quick (the default), quick-manip, ogbench50, ogbench50-qam or ogbench50-fql.
        dataset: your own data, as `bench data import` wrote them: path of the .npz file, or name.
        env: Gymnasium id of the environment they are of, to evaluate in; or module:id for one that
            a module of yours registers, in the current folder or installed.
        chunk_length: actions in a chunk of your own task; 1 by default.
        solved_at: return from which an episode of your own task counts as a success; by default
            the environment's word (info["success"]), else the threshold it is registered with.
        env_timeout: seconds that one call of an environment (a reset, a step) may take; one that
            takes longer is ended, and the run that it belongs to stops.
        env_memory: memory that an environment's process may take, such as 4GB; auto is an even
            share of three quarters of what is free, at least 2 GiB.
        preset: smoke runs the same path with tiny data, networks and step counts.
        domains: only these domains.
        tasks: only these task numbers.
        seeds: how many seeds per task.
        first_seed: the first of them.
    """

    suite: str | None = recorded_as("suite")
    dataset: str | None = None
    env: str | None = recorded_as("task.environment")
    chunk_length: int | None = recorded_as("task.horizon", formerly=FORMER["chunk_length"])
    solved_at: float | None = recorded_as("task.solved_at")
    env_timeout: float = 300.0
    env_memory: str = "auto"
    preset: Literal["full", "smoke"] = "full"
    domains: tuple[str, ...] = ()
    tasks: tuple[int, ...] = ()
    seeds: int = 1
    first_seed: int = 0


@dataclass(frozen=True)
class _Methods:
    """Which methods, with which settings.

    Attributes:
        agent: one or more agents (`bench agents` lists them), or all.
        kl_budget: trust-region budget, for agents that have one.
        dual: how lambda is found, for agents that have a KL budget: descend as published, by the
            relative violation of the budget, or solve the dual.
        policy: your own policy instead of a perceptron: module:function, of a function that makes
            an nn.Module with velocity(context, x, t), and encode(observations) if it has one.
        convention: of its times: data_at_one (v = data - noise), or noise_at_one (v = noise -
            data), as in openpi and LeRobot.
        set: agent settings as name=value.
    """

    agent: tuple[str, ...] = ("trqam",)
    kl_budget: float | None = setting_option("kl_budget", "trust region")
    dual: Literal["descend", "relative", "solve"] | None = setting_option("dual", "trust region")
    policy: str | None = recorded_as("networks.policy")
    convention: Literal["data_at_one", "noise_at_one"] = "data_at_one"
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Schedule:
    """How long to train and how often to evaluate.

    Attributes:
        steps: fine-tuning updates, instead of the protocol's.
        pretrain_steps: behaviour-cloning updates, 0 for none, instead of the protocol's.
        evaluate_every: updates between evaluations, instead of the protocol's.
        episodes: episodes per evaluation, instead of the protocol's.
        batch_size: chunks per update and run, instead of the protocol's.
        log_every: updates between two rows of training metrics, instead of the protocol's.
        checkpoint_every: updates between two checkpoints, instead of the protocol's.
        random_shift: pixels by which images of a batch are moved at most, as DrQ does; 0 for none.
    """

    steps: int | None = protocol_option("offline_steps")
    pretrain_steps: int | None = protocol_option("pretrain_steps", least=0, cloning=True)
    evaluate_every: int | None = protocol_option("evaluate_every")
    episodes: int | None = protocol_option("episodes", cloning=True)
    batch_size: int | None = protocol_option("batch_size", cloning=True)
    log_every: int | None = protocol_option("log_every")
    checkpoint_every: int | None = protocol_option("checkpoint_every")
    random_shift: int | None = protocol_option("random_shift", least=0, cloning=True)


@dataclass(frozen=True)
class _Places:
    """Where data come from and results go.

    Attributes:
        out: run directory; runs/SUITE by default.
        data_dir: where data sets are looked for; OGBench's folder by default.
        data_memory: memory that a data set may take, such as 8GB; larger ones are read from the
            disk ahead of the updates. auto is half of what is free, 0 reads all from the disk.
        generate: make missing data with OGBench's own recipe where that is possible.
        track: show the curves in TensorBoard or Weights & Biases, or both.
    """

    out: Path | None = None
    data_dir: Path | None = None
    data_memory: str = "auto"
    generate: bool = False
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()


@dataclass(frozen=True)
class _Execution:
    """On what hardware, and how.

    Attributes:
        device: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.
        precision: of the matrix products; auto is tf32 on a GPU and float32 elsewhere.
        compile: run updates through torch.compile; a minute or more for every new shape, for GPUs.
        capture: launch every update, its operations unchanged, as one CUDA graph.
        pack: most runs trained as one; by default all of a domain and agent, or as many as keep
            every process busy; auto measures what is fastest within memory, over all the agents.
        processes: packs trained at a time; by default one per GPU, or one per core of the CPU.
    """

    device: str = "auto"
    precision: PrecisionChoice = recorded_as("precision", "auto")
    compile: bool = recorded_as("compiled", default=False)
    capture: bool = False
    pack: int | Literal["auto"] | None = recorded_as("largest_pack")
    processes: int | None = None


# Fields of a later base come first.
@dataclass(frozen=True)
class OfflineRequest(_Execution, _Places, _Schedule, _Methods, _Tasks):
    """Pretrain, fine-tune and evaluate a suite, or data and an environment of the user's own.

    The fields are documented by subject, on the bases.
    """
