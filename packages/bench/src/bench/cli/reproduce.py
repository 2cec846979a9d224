"""`bench reproduce`: the command that made a run, and what is different here."""

from dataclasses import dataclass
from pathlib import Path

import tyro

__all__ = ["Reproduce"]


@dataclass(frozen=True)
class Reproduce:
    """Print the command that made a run and check this environment against the run's.

    Attributes:
        directory: run directory.
    """

    directory: tyro.conf.Positional[Path]

    def run(self) -> int:
        """Print; 0 if this environment is that of the run, else 1."""
        import shlex

        from bench.results import scan_evaluations
        from bench.storage import environment_differences, read_run

        record = read_run(self.directory)
        print(shlex.join(record.command))
        commit = (record.provenance.get("git") or {}).get("commit")
        if commit:
            print(f"# source: git checkout {commit}")
        columns = ["domain", "data_source", "data_fingerprint"]
        data = scan_evaluations([self.directory]).select(columns).unique().sort(columns).collect()
        for domain, source, fingerprint in data.iter_rows():
            print(
                f"# data of {domain}: {source or 'unknown'}, fingerprint {fingerprint or 'unknown'}"
            )
        differences = environment_differences(record.provenance)
        for difference in differences:
            print(f"# differs: {difference}")
        if not differences:
            print("# this environment is the one of the run")
        return 1 if differences else 0
