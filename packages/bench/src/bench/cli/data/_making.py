"""`bench data generate`, `expert` and `measure`: data that are made here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from bench.cli.data._arguments import Name, Names, at_least_one, progress_bar

__all__ = ["Generate", "Measure", "TrainExpert"]


@dataclass(frozen=True)
class Generate:
    """Make datasets with OGBench's scripted policies, by the published recipes.

    Rerun the command to resume an interrupted one. The number of processes does not change the
    data.

    Attributes:
        names: such as cube-double-play-v0 or pointmaze-medium-navigate-100k-v0.
        data_dir: folder of the data files; OGBench's by default.
        seed: seed of the data.
        transitions: must be what the name stands for; cube-double-play-20k-v0 has 20,000.
        processes: parallel processes; one for each core by default.
        overwrite: replace files that exist and are something else.
        policy: who moves ants and humanoids: the recipe's expert (bench data expert), or random
            actions, which the tables then name as the data's source.
    """

    names: Names
    data_dir: Path | None = None
    seed: int = 0
    transitions: int | None = None
    processes: int | None = None
    overwrite: bool = False
    policy: Literal["recipe", "random"] = "recipe"

    def run(self) -> int:
        """Make the datasets one after the other."""
        from bench.data import DatasetName, default_data_dir, generate, recipe_for

        for name in at_least_one(self.names):
            # Refuse a bad name before hours of work on a good one.
            recipe_for(DatasetName.parse(name))
        for name in self.names:
            with progress_bar(name, "transitions") as meter:
                paths = generate(
                    name,
                    self.data_dir or default_data_dir(),
                    seed=self.seed,
                    transitions=self.transitions,
                    processes=self.processes,
                    overwrite=self.overwrite,
                    policy=self.policy,
                    progress=meter,
                )
            where = paths[0] if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} files)"
            print(f"{name}: {meter.summary() or 'already there'}: {where}")
        return 0


@dataclass(frozen=True)
class TrainExpert:
    """Train the walker that collects ant or humanoid data, by soft actor-critic.

    Rerun the command to resume, also with more steps. Every line reports how well it walks: goals
    reached per episode of 1,000 steps, metres per step towards the goal, share of steps upright.

    Attributes:
        name: ant or humanoid.
        data_dir: folder of the data files; OGBench's by default. The expert lies in experts/NAME.
        steps: environment steps in all; OGBench's number by default (400,000 and 40 million).
        seed: of the first call.
        walkers: environments that are stepped in turn.
        updates_per_step: gradient steps per environment step.
        checkpoint_every: environment steps between checkpoints.
        episodes: episodes of the last measurement.
    """

    name: Annotated[Literal["ant", "humanoid"], tyro.conf.Positional]
    data_dir: Path | None = None
    steps: int | None = None
    seed: int = 0
    walkers: int = 8
    updates_per_step: float = 0.25
    checkpoint_every: int = 20_000
    episodes: int = 20

    def run(self) -> int:
        """Train, and measure."""
        from bench.data import default_data_dir
        from bench.data.expert import measure_expert, train_expert

        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}")
        expert = train_expert(
            self.name,
            self.data_dir or default_data_dir(),
            steps=self.steps,
            seed=self.seed,
            walkers=self.walkers,
            updates_per_step=self.updates_per_step,
            checkpoint_every=self.checkpoint_every,
            progress=lambda state: print(state, flush=True),
        )
        score = measure_expert(expert, episodes=self.episodes)
        print(
            f"{self.name} expert {expert.fingerprint} after {expert.steps:,} steps, "
            f"{self.episodes} episodes: {score}"
        )
        return 0


@dataclass(frozen=True)
class Measure:
    """Measure how fast a dataset is made, or read, on this machine; nothing stays on the disk.

    generation: the rate, and its share of (simulator steps a second of one process x processes),
    by wall time and by processor time; on a machine with other work trust the latter.
    reading: time and peak memory of reading it with the rewards of its five tasks, here and by
    ogbench.make_env_and_datasets. The dataset must be on the disk.

    Attributes:
        what: generation or reading.
        name: such as antmaze-large-navigate-20k-v0.
        data_dir: folder of the data files and experts; OGBench's by default.
        transitions: how many to read, for which the episodes there are repeated; how many to make
            is said by the name.
        processes: numbers of processes to measure generation with.
        policy: as for generate.
    """

    what: Annotated[Literal["generation", "reading"], tyro.conf.Positional]
    name: Name
    data_dir: Path | None = None
    transitions: int | None = None
    processes: tuple[int, ...] = (1,)
    policy: Literal["recipe", "random"] = "recipe"

    def run(self) -> int:
        """Print the figures, a line for each measurement."""
        from bench.data import default_data_dir
        from bench.data._measure import measure_generation, measure_reading

        folder = self.data_dir or default_data_dir()
        if self.what == "reading":
            for cost in measure_reading(self.name, folder, transitions=self.transitions):
                print(
                    f"{cost.reader}: {cost.seconds:.1f} s, {cost.processor_seconds:.1f} s of "
                    f"processor time, {cost.peak_bytes / 1e9:.2f} GB at its peak"
                )
            return 0
        for processes in self.processes:
            made = measure_generation(
                self.name,
                folder,
                processes=processes,
                transitions=self.transitions,
                policy=self.policy,
            )
            print(
                f"{processes} process{'es' * (processes > 1)}: {made.transitions:,} transitions, "
                f"{made.rate:,.0f} a second; the bare simulator makes "
                f"{1.0 / made.step_seconds:,.0f} steps a second in one process: "
                f"{made.efficiency:.0%} of it by wall time, "
                f"{made.processor_efficiency:.0%} by processor time "
                f"({made.processor_seconds:.1f} s)"
            )
        return 0
