"""`bench reproduce`: the command that made a run, and what is different here."""

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Reproduce"]


@dataclass(frozen=True)
class Reproduce:
    """Print the command that made a run and check this environment and its data against the run's.

    The data are read as a whole: what counts is what the files hold now.

    Attributes:
        directory: run directory.
        data_dir: where to look for the data; by default where the run found them.
    """

    directory: tyro.conf.Positional[Path]
    data_dir: Path | None = None

    def run(self) -> int:
        """Print; 0 if this environment and the data are those of the run, else 1."""
        import shlex

        from bench.results import check_data
        from bench.storage import environment_differences, read_run

        record = read_run(self.directory)
        for command in (record.command, *record.further):
            print(shlex.join(command))
        commit = (record.provenance.get("git") or {}).get("commit")
        if commit:
            print(f"# source: git checkout {shlex.quote(str(commit))}")
        differences = environment_differences(record.provenance)
        for data in check_data(self.directory, self.data_dir):
            where = f"the same in {data.found}" if data.found else "not the same here"
            print(f"# data {data.dataset}: {data.source}, {data.fingerprint[:12]}: {where}")
            if data.problem:
                differences.append(f"data {data.dataset}: {data.problem}")
        for difference in differences:
            print(f"# differs: {difference}")
        if not differences:
            print("# this environment is the same as the run's")
        return 1 if differences else 0
