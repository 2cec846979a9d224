"""Where data are downloaded from, and which contents are expected."""

import json
import os
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from bench.data._files import read_document
from bench.storage import write_json


@dataclass(frozen=True, slots=True)
class DownloadSource:
    """A place that serves data files.

    Attributes:
        name: for messages.
        url: address that a file's path is appended to; empty for a hub repository.
        repository: dataset of the Hugging Face hub; empty for an address.
        dataset: the only dataset that it has, its files at the top; empty for a source of many.
        is_published: whether it has OGBench's datasets and no others.
    """

    name: str
    url: str = field(default="", repr=False)
    repository: str = ""
    dataset: str = ""
    is_published: bool = False

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.repository):
            raise ValueError(f"source '{self.name}': expected either a url or a repository")
        if self.url and not _is_address(self.url):
            raise ValueError(
                f"source '{without_secrets(self.url)}': expected an address with http or https"
            )

    def address(self, path: str) -> str:
        """Full address of a file, given its path with forward slashes."""
        if self.repository:
            from huggingface_hub import hf_hub_url

            name = path.removeprefix(f"{self.dataset}/") if self.dataset else path
            return hf_hub_url(self.repository, name, repo_type="dataset")
        return f"{self.url.rstrip('/')}/{quote(path)}"

    def has(self, dataset: str) -> bool:
        """Whether the source may have a dataset."""
        return self.dataset in ("", dataset)


def without_secrets(url: str) -> str:
    """An address as it may be shown and recorded: without user, password and query."""
    try:
        parts = urlsplit(url)
        host = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "(an address that cannot be read)"
    return f"{parts.scheme}://{host}{parts.path}" if parts.scheme else parts.path


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def download_sources(first: Sequence[str] = ()) -> list[DownloadSource]:
    """The sources in the order in which they are tried.

    Args:
        first: addresses to try before all others.

    Returns:
        These, then those of `$BENCH_DATA_SOURCES`, then those of `sources.toml`.

    Raises:
        ValueError: if an address is none.
    """
    extra = [*first, *os.environ.get("BENCH_DATA_SOURCES", "").split()]
    listed = tomllib.loads(files("bench.data").joinpath("sources.toml").read_text(encoding="utf-8"))
    return [
        *(DownloadSource(without_secrets(url).partition("://")[2], url) for url in extra),
        *(DownloadSource(**entry, is_published=True) for entry in listed["source"]),
    ]


@dataclass(frozen=True, slots=True)
class Checksum:
    """Length in bytes and SHA-256 of a file as it is served."""

    bytes: int
    sha256: str


class ChecksumLock:
    """Checksums of served files: the published ones, and those of first downloads.

    Args:
        data_dir: folder of the data files, where first downloads are recorded.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "checksums.json"
        published = files("bench.data").joinpath("checksums.json").read_text(encoding="utf-8")
        self._published = _parse(json.loads(published), "checksums.json of bench")
        self._recorded: dict[str, Checksum] = {}
        if self._path.exists():
            self._recorded = _parse(read_document(self._path), str(self._path))

    def expected(self, path: str) -> Checksum | None:
        """What a file must be, if that is known."""
        return self._published.get(path) or self._recorded.get(path)

    def record(self, path: str, checksum: Checksum) -> None:
        """Remember a file that was downloaded for the first time."""
        if self.expected(path) is None:
            self._recorded[path] = checksum
            write_json(self._path, {name: asdict(c) for name, c in sorted(self._recorded.items())})


def _parse(content: Any, place: str) -> dict[str, Checksum]:
    try:
        return {name: Checksum(**entry) for name, entry in content.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{place}: not a list of checksums ({error}); remove or fix it") from error
