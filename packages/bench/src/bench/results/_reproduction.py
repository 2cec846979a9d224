"""Whether the data that a run was trained on are the data on this disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data import (
    DataDamaged,
    DataMissing,
    combined_fingerprint,
    default_data_dir,
    ensure_record,
    inspect_file,
    locate,
)
from bench.results._scan import scan_evaluations
from bench.storage import RunRecord, read_run

__all__ = ["DataCheck", "check_data", "recorded_data"]


@dataclass(frozen=True, slots=True)
class DataCheck:
    """One data set of a run, looked for here.

    Attributes:
        dataset: its name, or that of its domain where the run does not name the data set.
        source: where the run's data came from.
        fingerprint: of the run's data.
        found: where the same data are on this disk; None if they are not.
        problem: why not; empty if they are.
    """

    dataset: str
    source: str
    fingerprint: str
    found: Path | None
    problem: str


def recorded_data(directory: Path) -> dict[str, dict[str, str]]:
    """Data set to `fingerprint`, `source` and, for runs that noted it, `folder`.

    Runs from before `run.json` named its data are asked by their evaluation rows.

    Raises:
        ResultsError: it is no run, or its tables cannot be read.
    """
    record = read_run(directory)
    if data := record.provenance.get("data"):
        return {name: dict(origin) for name, origin in data.items()}
    names = _datasets(record)
    columns = ["domain", "data_source", "data_fingerprint"]
    rows = scan_evaluations([directory]).select(columns).unique().sort(columns).collect()
    return {
        names.get(domain, domain): {
            "fingerprint": fingerprint or "unknown",
            "source": source or "unknown",
        }
        for domain, source, fingerprint in rows.iter_rows()
    }


def check_data(directory: Path, data_dir: Path | None = None) -> list[DataCheck]:
    """Reads the run's data sets on this disk as a whole and compares their fingerprints.

    Args:
        directory: of the run.
        data_dir: where to look; by default the run's folder, or OGBench's where that is gone.

    Raises:
        ResultsError: it is no run, or its tables cannot be read.
    """
    return [
        _check(dataset, origin, data_dir) for dataset, origin in recorded_data(directory).items()
    ]


def _datasets(record: RunRecord) -> dict[str, str]:
    """Domain to data set."""
    packs = record.packs
    return {c.domain: packs[c.pack]["dataset"] for c in record.cells if c.pack in packs}


def _check(dataset: str, origin: Mapping[str, str], data_dir: Path | None) -> DataCheck:
    folder = data_dir or Path(origin.get("folder", ""))
    if data_dir is None and ("folder" not in origin or not folder.is_dir()):
        folder = default_data_dir()
    found, problem = None, ""
    if dataset.endswith(".npz") and not Path(dataset).expanduser().exists():
        # The file was moved, and --data-dir says where to.
        dataset = str(folder / Path(dataset).name)
    try:
        place = locate(dataset, folder)
        # Not what is recorded beside the files: what is in them now.
        contents = {file.name: inspect_file(file) for file in place.files}
        here = combined_fingerprint(replace(ensure_record(place), files=contents), place.files)
        if here == origin["fingerprint"]:
            found = place.files[0].parent
        else:
            problem = f"the files in {folder} hold other data, fingerprint {here[:12]}"
    except (DataMissing, DataDamaged, ValueError) as error:
        problem = str(error)
    return DataCheck(dataset, origin["source"], origin["fingerprint"], found, problem)
