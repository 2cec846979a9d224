"""What to measure; plain data, so that a command line is quick to answer."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from bench.experiment import Mode, Precision, refuse_repeats
from bench.recorded import renamed

__all__ = ["Clock", "SpeedRequest"]

Clock = Literal["wall", "cpu"]


@dataclass(frozen=True)
class SpeedRequest:
    """Measure updates per second of agents on made-up data, in every combination asked for.

    Sizes are those of the paper's cube-single: 28 observed numbers, chunks of 5 actions of 5. The
    combinations take turns in one process, so that a busy machine slows all of them alike; figures
    are medians over the turns.

    Attributes:
        agents: names from `bench agents`.
        widths: of the four hidden layers of every network.
        replicas: runs trained as one.
        precisions: of the matrix products; tf32 is for GPUs.
        modes: eager, compiled (torch.compile), captured (whole updates in one CUDA graph), or
            compiled+captured.
        device: cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.
        batch: chunks per update and replica.
        num_critics: size of the critic ensembles.
        flow_steps: steps of the flow.
        observation_dim: numbers in an observation.
        action_dim: numbers in an action.
        chunk_length: actions in a chunk.
        per_launch: updates in one captured graph.
        processes: that measure at once, as packs of a run train side by side; rates are added up.
        threads: of the CPU in each process; as torch has it by default, and with several processes
            its share of the cores.
        clock: wall, or cpu: processor time of this process, for one thread of a machine that
            others use as well.
        seconds: length of a turn.
        turns: how many turns each combination gets.
        against: commands whose output ends with their updates per second, run at every turn; one
            that prints `ready` stays alive: for each line read, the seconds to measure, it prints
            a line that ends with its rate, and it exits at the end of input.
        out: file for the table, .csv, .json or .parquet (which needs polars); folders are made.
        roofline: file for a picture of the eager rows under the machine's limits, .png, .svg or
            .pdf (which needs matplotlib).
    """

    agents: tuple[str, ...] = ("trqam",)
    widths: tuple[int, ...] = (512,)
    replicas: tuple[int, ...] = (1,)
    precisions: tuple[Precision, ...] = ("float32",)
    modes: tuple[Mode, ...] = ("eager",)
    device: str = "auto"
    batch: int = 256
    num_critics: int = renamed("num_critics", 10)
    flow_steps: int = 10
    observation_dim: int = 28
    action_dim: int = 5
    chunk_length: int = renamed("chunk_length", 5)
    per_launch: int = 10
    processes: int = 1
    threads: int | None = None
    clock: Clock = "wall"
    seconds: float = 2.0
    turns: int = 3
    against: tuple[str, ...] = ()
    out: Path | None = None
    roofline: Path | None = None

    def check(self) -> None:
        """Refuse what cannot be measured.

        Raises:
            ValueError: a number is below one, a combination is impossible or a name unknown.
        """
        refuse_repeats(self, but=("against",))
        counts = {
            "widths": min(self.widths, default=0),
            "replicas": min(self.replicas, default=0),
            "batch": self.batch,
            "num-critics": self.num_critics,
            "flow-steps": self.flow_steps,
            "observation-dim": self.observation_dim,
            "action-dim": self.action_dim,
            "chunk-length": self.chunk_length,
            "per-launch": self.per_launch,
            "turns": self.turns,
            "processes": self.processes,
            "threads": 1 if self.threads is None else self.threads,
        }
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"--{name} must be at least 1, got {value}")
        if self.clock == "cpu" and self.threads != 1:
            raise ValueError("--clock cpu adds up the time of all threads: give --threads 1")
        if self.processes > 1 and (self.against or self.roofline):
            raise ValueError("--processes adds up agents alone: leave --against and --roofline out")
        if not (math.isfinite(self.seconds) and self.seconds > 0.0):
            raise ValueError(f"--seconds must be positive and finite, got {self.seconds}")
        if self.roofline is not None:
            if self.roofline.suffix not in (".png", ".svg", ".pdf"):
                raise ValueError(f"--roofline must end in .png, .svg or .pdf, got {self.roofline}")
            if "eager" not in self.modes:
                raise ValueError("--roofline shows eager updates: add eager to --modes")
        if self.out is not None and self.out.suffix not in (".csv", ".json", ".parquet"):
            raise ValueError(f"--out must end in .csv, .json or .parquet, got {self.out}")
        for option, file, kind, library in (
            ("out", self.out, ".parquet", "polars"),
            ("roofline", self.roofline, "", "matplotlib"),
        ):
            if file is None:
                continue
            if file.suffix.startswith(kind) and find_spec(library) is None:
                raise ValueError(f"--{option} {file} needs {library}, which is not installed")
            if file.is_dir():
                raise ValueError(f"--{option} {file} is a folder, expected a file")
