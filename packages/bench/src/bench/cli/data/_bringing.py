"""`bench data get` and `import`: data that exist elsewhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from bench.cli.data._arguments import Name, Names, at_least_one, progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Get", "Import"]


@dataclass(frozen=True)
class Get:
    """Download published datasets, verified and resumable.

    Rerun the command to resume an interrupted download. Sources: those given here, those of
    $BENCH_DATA_SOURCES, OGBench's own host, a mirror on the Hugging Face hub.

    Attributes:
        names: such as cube-double-play-v0 or cube-triple-play-10m-v0.
        data_dir: folder of the data files; OGBench's by default.
        source: addresses to try before all others.
        validation: also the validation files.
        connections: files downloaded at the same time.
        retries: failures in a row after which a source is given up.
        overwrite: also replace data that were generated or imported here.
    """

    names: Names
    data_dir: Path | None = None
    source: tuple[str, ...] = ()
    validation: bool = True
    connections: int = 4
    retries: int = 5
    overwrite: bool = False

    def run(self) -> int:
        """Download the datasets one after the other."""
        from bench.data import DatasetName, Patience, default_data_dir, download_sources, get

        sources = download_sources(self.source)
        for name in at_least_one(self.names):
            DatasetName.parse(name)
        for name in self.names:
            with progress_bar(name, "bytes") as meter:
                done = get(
                    name,
                    self.data_dir or default_data_dir(),
                    sources=sources,
                    validation=self.validation,
                    connections=self.connections,
                    overwrite=self.overwrite,
                    patience=Patience(retries=self.retries),
                    progress=meter,
                    say=meter.say,
                )
            print(f"{name}: {meter.summary() or 'already there'}: {done.files[0].parent}")
            for path in done.replaced:
                print(f"  replaced, as it was damaged or of other origin: {path.name}")
            if done.missing:
                print(f"  no source has {len(done.missing)} validation files; training needs none")
        return 0


@dataclass(frozen=True)
class Import:
    """Bring data of your own into the layout of the others, checked.

    Understood are npz and HDF5 files with rows of states (OGBench), with transitions (D4RL,
    Gymnasium, d3rlpy), with groups episode_0, episode_1, ... (Minari) or data/demo_0, ...
    (robomimic); minari:DATASET where the package minari is installed; and folders of LeRobot
    datasets. Three lines say what was recognised; what a file leaves open is asked for.

    Attributes:
        source: the file or folder, or minari:DATASET.
        name: name to give the dataset.
        data_dir: folder of the data files; OGBench's by default.
        layout: ogbench if every row is a state, final ones included; transitions if every row is a
            transition; told from the names of the arrays by default.
        observation_keys: entries of a dictionary observation to join, in this order, such as
            agent/pos goal; all in the order of Gymnasium's FlattenObservation by default.
        terminals: name of the flags of true ends, or none.
        timeouts: name of the flags of episodes that were cut off, or none.
        next_observations: name of the states after the transitions, or none to leave them unread.
        action_range: lowest and highest action of the source, which become -1 and 1.
        env: Gymnasium id whose action bounds are that range, for every entry of an action; or
            module:id for one that a module of yours registers, in the current folder or installed.
        overwrite: replace a dataset of that name.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    name: Name
    data_dir: Path | None = None
    layout: Literal["auto", "ogbench", "transitions"] = "auto"
    observation_keys: tuple[str, ...] = ()
    terminals: str = ""
    timeouts: str = ""
    next_observations: str = ""
    action_range: tuple[float, float] | None = None
    env: str | None = None
    overwrite: bool = False

    def run(self) -> int:
        """Import the data."""
        from bench.data import default_data_dir, folder_option, import_data

        if self.env is not None and self.action_range is not None:
            raise ValueError("give --action-range or --env, not both")
        done = import_data(
            self.source,
            self.name,
            self.data_dir or default_data_dir(),
            layout=self.layout,
            observation_keys=self.observation_keys,
            terminals=self.terminals or None,
            timeouts=self.timeouts or None,
            next_observations=self.next_observations or None,
            action_range=_bounds(self.env) if self.env is not None else self.action_range,
            overwrite=self.overwrite,
        )
        print("\n".join(done.recognised))
        where = folder_option(self.data_dir)
        command = f"bench data inspect {self.name}{where}"
        print(f"{self.name}: {done.path}; `{command}` shows what is in it")
        return 0


def _bounds(env: str) -> "tuple[NDArray[np.float32], NDArray[np.float32]]":
    from bench.simulation import make

    environment = make(env)
    environment.close()
    return environment.action_low, environment.action_high
