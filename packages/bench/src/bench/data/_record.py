"""The JSON beside a dataset that says where its data come from."""

import importlib.metadata
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from bench.data._errors import DataDamaged
from bench.data._files import is_plain_name, read_document
from bench.storage import write_json

Source = Literal["downloaded", "generated", "random policy", "imported", "unknown"]

FORMAT = 1


def simulator_versions() -> dict[str, str]:
    """Versions of the packages that decide what a simulation gives."""
    packages = ("mujoco", "dm_control", "ogbench", "gymnasium", "numpy")
    return {name: importlib.metadata.version(name) for name in packages}


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What is known of one file.

    Attributes:
        bytes: its length.
        rows: rows of its arrays.
        episodes: episodes in it.
        fingerprint: SHA-256 of its contents (`fingerprint`), independent of compression.
    """

    bytes: int
    rows: int
    episodes: int
    fingerprint: str

    def is_sound(self) -> bool:
        """Whether the entries are counts and a sum."""
        counts = (self.bytes, self.rows, self.episodes)
        return (
            all(isinstance(n, int) and n >= 0 for n in counts)
            and isinstance(self.fingerprint, str)
            and re.fullmatch(r"[0-9a-f]{64}", self.fingerprint) is not None
        )

    def write(self, path: Path) -> None:
        """Write the record of this file alone as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "FileRecord":
        """Read what `write` wrote."""
        return cls(**read_document(path))


@dataclass(frozen=True, slots=True)
class DataRecord:
    """Provenance of a dataset, `<dataset>.json` in the data directory.

    Attributes:
        dataset: its name.
        source: `downloaded`, `generated` by the published recipe, `random policy`, `imported`, or
            `unknown` for files found on disk.
        origin: the address, or the path of what was imported; empty for generated data.
        recipe: settings of the generation; empty otherwise.
        versions: of the simulator when the data were generated; empty otherwise.
        files: by file name, training and validation.
    """

    dataset: str
    source: Source
    origin: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileRecord] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the record as JSON, replacing an older one at once."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, path: Path) -> "DataRecord | None":
        """Read a record; None if there is none.

        Raises:
            DataDamaged: if the file is no such record or was written by a later version.
        """
        try:
            content = read_document(path)
        except FileNotFoundError:
            return None
        try:
            if content.pop("format") != FORMAT:
                raise DataDamaged(f"{path}: written by a later version of bench")
            files = {name: FileRecord(**entry) for name, entry in content.pop("files").items()}
            record = cls(files=files, **content)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataDamaged(f"{path}: not a record of a dataset ({error!r})") from error
        record._check(path)
        return record

    def _check(self, path: Path) -> None:
        """Refuse contents that are none of a record: they become paths, labels and commands."""
        sound = {
            "dataset": isinstance(self.dataset, str) and is_plain_name(self.dataset),
            "source": self.source in get_args(Source),
            "origin": isinstance(self.origin, str) and self.origin.isprintable(),
            "recipe": isinstance(self.recipe, dict),
            "versions": isinstance(self.versions, dict)
            and all(_is_label(text) for pair in self.versions.items() for text in pair),
            "files": all(_is_label(n) and entry.is_sound() for n, entry in self.files.items()),
        }
        wrong = [name for name, right in sound.items() if not right]
        if wrong:
            raise DataDamaged(
                f"{path}: '{wrong[0]}' is not what a record of a dataset has there; remove the "
                "record; the files are then read and recorded again"
            )


def _is_label(text: object) -> bool:
    return isinstance(text, str) and len(text) < 300 and text.isprintable() and "/" not in text
