"""`run.json`: what a run directory is about, readable by people and by every report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import FormatVersionError, ResultsError
from bench.storage._atomic import read_json, write_json
from bench.storage._untrusted import require_count, require_name

__all__ = ["PlannedCell", "RunRecord", "read_run", "run_directories", "write_run"]

RUN_NAME = "run.json"
RUN_VERSION = 1


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One run that is to be made, and where it ends.

    Attributes:
        final_steps: phase (`pretrain`, `offline`, `online`) to its last evaluated step.
        pack: name of the pack that trains it, `packs/<pack>` in the run directory.
        variant: what distinguishes it from the same agent elsewhere (a swept setting), or "".
    """

    suite: str
    domain: str
    task: str
    agent: str
    seed: int
    final_steps: dict[str, int]
    pack: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Contents of `run.json`.

    Attributes:
        command: the command line that makes this run.
        settings: every setting by name, as plain data.
        provenance: as `bench.storage.collect_provenance`.
        cells: the runs that are planned; reports count against them.
        version: of this file's format.
        further: command lines that made more cells in the same directory, in their order.
    """

    command: list[str]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    cells: Sequence[PlannedCell] = field(default=())
    version: int = RUN_VERSION
    further: Sequence[list[str]] = field(default=())

    @property
    def packs(self) -> dict[str, dict[str, Any]]:
        """Agent, data set and settings of the packs of all phases, by name."""
        online = self.settings.get("online", {}).get("packs", {})
        return {**self.settings.get("packs", {}), **online}


def write_run(directory: Path, record: RunRecord) -> None:
    """Writes `run.json` as a whole.

    Raises:
        ValueError: a name of a cell is one that `read_run` would refuse.
        OSError: the directory cannot be written.
    """
    document = asdict(record)
    if not record.further:  # as earlier versions wrote and read it
        del document["further"]
    for cell in document["cells"]:
        _planned(cell, directory / RUN_NAME)
    write_json(directory / RUN_NAME, document)


def read_run(directory: Path) -> RunRecord:
    """Reads `run.json`, and checks every name in it that becomes a path, a label or a look-up.

    Raises:
        ResultsError: it is missing or damaged, or holds what no run writes.
        FormatVersionError: a newer format.
    """
    path = directory / RUN_NAME
    try:
        document = read_json(path)
        if document["version"] > RUN_VERSION:
            raise FormatVersionError(
                f"{path} has format {document['version']}, this version reads up to {RUN_VERSION}; "
                f"trqam-bench {document['provenance']['packages']['trqam-bench']} wrote it"
            )
        cells = [_planned(cell, path) for cell in document.pop("cells")]
        record = RunRecord(**document, cells=cells)
        _require_plain(record, path)
        return record
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ResultsError(f"{directory} is no run directory: it has no {RUN_NAME}") from error
    except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        raise ResultsError(f"{path} cannot be used: {error!r}") from error


def _planned(entry: dict[str, Any], path: Path) -> PlannedCell:
    cell = PlannedCell(**entry)
    for kind in ("suite", "domain", "task", "agent", "pack", "variant"):
        require_name(kind, getattr(cell, kind), path)
    require_count("seed", cell.seed, path)
    for phase, step in cell.final_steps.items():
        require_name("phase", phase, path)
        require_count("final step", step, path)
    return cell


def _require_plain(record: RunRecord, path: Path) -> None:
    """Checks what is not in the cells: types, and the names of packs and data sets.

    Raises:
        ValueError: something has another type, or is no name.
    """
    for command in (record.command, *record.further):
        if not isinstance(command, list) or not all(isinstance(part, str) for part in command):
            raise ValueError(f"{path} gives a command that is no list of texts")
    for name in ("packages", "git", "hardware", "environment", "data"):
        if not isinstance(record.provenance.get(name) or {}, dict):
            raise ValueError(f"{path} gives {name} that are no names and values")
    git = record.provenance.get("git") or {}
    commit = git.get("commit")
    if commit is not None and re.fullmatch("[0-9a-f]{7,64}", str(commit)) is None:
        raise ValueError(f"{path} gives {commit!r} as git commit")
    for name, settings in record.packs.items():
        require_name("pack", name, path)
        if (agent := settings.get("agent")) is not None:
            require_name("agent", agent, path)
        if (dataset := settings.get("dataset")) is not None:
            require_name("dataset", dataset, path)
    for name, origin in record.provenance.get("data", {}).items():
        require_name("dataset", name, path)
        texts = all(isinstance(text, str) for text in origin.values())
        if not texts or not {"fingerprint", "source"} <= set(origin):
            raise ValueError(f"{path} gives an origin of {name} that is none")


def run_directories(places: Sequence[Path]) -> list[Path]:
    """Run directories at or below `places`, sorted, each once.

    Raises:
        ResultsError: a place does not exist, or none holds a run.
    """
    found: set[Path] = set()
    for place in places:
        if not place.is_dir():
            raise ResultsError(f"{place} is not a directory; give run directories or their parent")
        found.update(path.parent for path in place.rglob(RUN_NAME))
    if not found:
        listed = ", ".join(str(place) for place in places)
        raise ResultsError(f"no run (a directory with {RUN_NAME}) in {listed}")
    return sorted(found)
