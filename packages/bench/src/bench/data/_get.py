"""Published datasets, downloaded and verified."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Lock

from bench.data._errors import DataDamaged, DownloadFailed
from bench.data._locate import folder_option, inspect_file
from bench.data._names import SHARD_TRANSITIONS, DatasetName
from bench.data._published import check_published
from bench.data._recipes import RECIPES
from bench.data._record import DataRecord, FileRecord
from bench.data._sources import (
    Checksum,
    ChecksumLock,
    DownloadSource,
    download_sources,
    without_secrets,
)
from bench.data._transfer import (
    NoConnectionError,
    Patience,
    RefusedError,
    UnreachableError,
    discard,
    remote_size,
    transfer,
)
from bench.storage import RunLock

_BYTES_A_ROW = 16 << 10  # More than any published row takes, those of 64 x 64 pixels included.
_MOST_ROWS = 6_000_000  # Of a published file: five million transitions and the final states.


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What `get` did.

    Attributes:
        files: training files, then validation files, all on the disk and intact.
        fetched: those of them that were downloaded now.
        replaced: those that were on the disk and damaged.
        missing: validation files that no source has; training does not need them.
    """

    files: tuple[Path, ...]
    fetched: tuple[Path, ...]
    replaced: tuple[Path, ...]
    missing: tuple[Path, ...]


def get(
    dataset: str,
    data_dir: Path,
    *,
    sources: Sequence[DownloadSource] | None = None,
    validation: bool = True,
    connections: int = 4,
    overwrite: bool = False,
    patience: Patience | None = None,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Downloaded:
    """Download a published dataset.

    Files are written beside their place and moved there when they are whole, have the expected
    SHA-256 (where one is known, else it is recorded) and pass the checks of `inspect_file`. The
    same call continues what was interrupted; files that are there and intact are left alone.

    Args:
        dataset: name, e.g. `cube-double-play-v0`. Ten million transitions are the first ten files
            of the hundred million.
        data_dir: folder of the data files.
        sources: where to look, in this order; by default `download_sources()`.
        validation: also the validation files, as far as there are any.
        connections: files downloaded at the same time.
        overwrite: also replace data that were generated or imported here.
        patience: timeouts and retries.
        progress: called with the bytes on the disk and in all.
        say: told what is waited for.

    Raises:
        DownloadFailed: if no source gives a training file; the text lists what was tried.
        ValueError: for bad arguments, or data of another origin in the way.
        RunLockedError: if another process downloads the same.
        OSError: if the disk is full or cannot be written.
    """
    if connections < 1:
        raise ValueError(f"connections is {connections}; expected 1 or more")
    name = DatasetName.parse(dataset)
    count = max(1, name.shards)
    name, offered = _offered(name, list(download_sources() if sources is None else sources))
    training = name.files(data_dir)[:count]
    optional = name.files(data_dir, validation=True)[:count] if validation else []
    record = DataRecord.read(name.record_file(data_dir)) or DataRecord(str(name), "unknown")
    if not overwrite and training[0].exists():
        _require_downloaded(training[0], record)
    folder = data_dir / f".{name}.download"
    with RunLock(folder, alternative="another folder with --data-dir"):
        largest = _BYTES_A_ROW * (min(name.transitions or 0, SHARD_TRANSITIONS) or _MOST_ROWS)
        job = _Download(
            data_dir, folder, record, offered, patience or Patience(), progress, say, largest
        )
        job.look_at([*training, *optional], keep=record.source in ("downloaded", "unknown"))
        job.plan_space()
        job.run(connections, set(optional))
        job.write_record(name)
        shutil.rmtree(folder)
    there = tuple(path for path in (*training, *optional) if path not in job.missing)
    return Downloaded(there, tuple(job.fetched), tuple(job.replaced), tuple(job.missing))


def _offered(
    name: DatasetName, sources: Sequence[DownloadSource]
) -> tuple[DatasetName, list[DownloadSource]]:
    """The name under which a dataset is published, and the sources that have it."""
    if all(source.is_published for source in sources):
        check_published(name)
    if 0 < name.shards < 100 and not any(source.dataset == str(name) for source in sources):
        # The large sets are published with a hundred files; smaller ones are the first of them.
        name = name.resized(100_000_000)
    return name, [source for source in sources if source.has(str(name))]


def _require_downloaded(file: Path, record: DataRecord) -> None:
    """Refuse to replace data that were made or imported here."""
    if record.source in ("generated", "random policy", "imported"):
        raise ValueError(
            f"{file} exists and was {record.source} here: replace it with "
            "--overwrite, or use another folder with --data-dir"
        )


class _Download:
    """The state that the threads of one download share."""

    def __init__(
        self,
        data_dir: Path,
        folder: Path,
        record: DataRecord,
        sources: Sequence[DownloadSource],
        patience: Patience,
        progress: Callable[[int, int], None] | None,
        say: Callable[[str], None],
        largest: int,
    ) -> None:
        self.data_dir = data_dir
        self.folder = folder
        self.record = record
        self.sources = list(sources)
        self.patience = patience
        self.progress = progress
        self.say = say
        self.largest = largest
        self.checksums = ChecksumLock(data_dir)
        self.wanted: list[Path] = []
        self.files: dict[str, FileRecord] = {}
        self.fetched: list[Path] = []
        self.replaced: list[Path] = []
        self.missing: list[Path] = []
        self.origins: set[str] = set()
        self.unreachable: set[DownloadSource] = set()
        self.silent: dict[DownloadSource, str] = {}
        self.sizes: dict[Path, int] = {}
        self.done = 0
        self.stop = Event()
        self.lock = Lock()

    def look_at(self, paths: Sequence[Path], *, keep: bool) -> None:
        """Sort out which files are there and intact."""
        for path in paths:
            if path.exists() and keep:
                known = self.record.files.get(path.name)
                if known is not None and known.bytes == path.stat().st_size:
                    self.files[path.name] = known
                    continue
                with contextlib.suppress(DataDamaged):
                    self.files[path.name] = inspect_file(path)
                    continue
            if path.exists():
                self.replaced.append(path)
            self.wanted.append(path)

    def plan_space(self) -> None:
        """Ask how long the files are, and refuse to start what cannot fit."""
        self._greet()
        with ThreadPoolExecutor(8) as pool:
            sizes = pool.map(self._remote_size, self.wanted)
            self.sizes = dict(zip(self.wanted, sizes, strict=True))
        self.done = sum(_length(self._part(path)) for path in self.wanted)
        needed = sum(self.sizes.values()) - self.done
        free = shutil.disk_usage(self.data_dir).free
        if needed > free:
            raise OSError(
                errno.ENOSPC,
                f"{needed / 1e9:.2f} GB must be downloaded but only {free / 1e9:.2f} GB are free",
                str(self.data_dir),
            )

    def run(self, connections: int, optional: set[Path]) -> None:
        """Download what is wanted; the first failure ends the others and is raised."""
        self._report(0)
        with ThreadPoolExecutor(connections) as pool:
            futures = [pool.submit(self._fetch, path, path in optional) for path in self.wanted]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def write_record(self, name: DatasetName) -> None:
        """Record the files and their origin."""
        kept_unknown = self.record.source == "unknown" and len(self.files) > len(self.fetched)
        if self.record.source not in ("downloaded", "unknown"):
            self.record = replace(self.record, files={})  # All were replaced.
        if self.fetched:
            self.record = replace(
                self.record,
                source="unknown" if kept_unknown else "downloaded",
                origin=", ".join(sorted(self.origins)),
                recipe={},
                versions={},
            )
        files = self.record.files | self.files
        replace(self.record, files=files).write(name.record_file(self.data_dir))

    def _fetch(self, path: Path, optional: bool) -> None:
        relative, part = path.relative_to(self.data_dir).as_posix(), self._part(path)
        tried, refused = [], 0
        for source in sorted(self.sources, key=lambda s: s in self.unreachable):
            if source in self.silent:
                tried.append(f"{source.name}: {self.silent[source]}")
                continue
            try:
                self._fetch_from(source, relative, part, path)
                return
            except RefusedError as error:
                refused += 1
                tried.append(f"{source.name}: {error}")
            except UnreachableError as error:
                self.unreachable.add(source)
                tried.append(f"{source.name}: {error}")
        if optional and refused == len(self.sources):
            self.missing.append(path)
            return
        name = DatasetName.parse(self.record.dataset)
        where = folder_option(self.data_dir)
        instead = (
            f"`bench data generate {name}{where}` makes it with OGBench's own recipe; "
            if name.stem in RECIPES
            else ""
        )
        raise DownloadFailed(
            f"no source gives {relative}. Tried {'; '.join(tried) or 'none'}. What was downloaded "
            f"is kept; rerun the command to resume. {instead}`bench data import` imports a local "
            "file; --source adds an address"
        )

    def _fetch_from(self, source: DownloadSource, relative: str, part: Path, path: Path) -> None:
        """Download a file from one source; once more from its beginning if the parts do not fit."""
        expected = self.checksums.expected(relative)
        while True:
            resumed = transfer(
                source.address(relative),
                part,
                patience=self.patience,
                stop=self.stop,
                report=self._report,
                largest=self.largest if expected is None else expected.bytes,
                say=lambda text: self.say(f"{source.name}: {text}"),
            )
            try:
                checksum = self._verified(part, relative)
                record = inspect_file(part)
                break
            except DataDamaged as error:
                discard(part, self._report)
                if not resumed:
                    raise RefusedError(f"it serves the wrong content ({error})") from error
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        with self.lock:
            self.checksums.record(relative, checksum)
            self.files[path.name] = record
            self.fetched.append(path)
            self.origins.add(without_secrets(source.url) or source.repository)

    def _verified(self, part: Path, relative: str) -> Checksum:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found, expected = Checksum(_length(part), digest), self.checksums.expected(relative)
        if expected is not None and found != expected:
            raise DataDamaged(
                f"{found.bytes} bytes with SHA-256 {found.sha256}, expected {expected.bytes} with "
                f"{expected.sha256}"
            )
        return found

    def _greet(self) -> None:
        """Find out at which sources nobody answers: they are not waited for file by file."""
        if not self.wanted:
            return
        path = self.wanted[0].relative_to(self.data_dir).as_posix()
        for source in self.sources:
            self.say(f"asking {source.name}")
            for attempt in (0, 1):
                self.silent.pop(source, None)
                try:
                    remote_size(source.address(path), self.patience)
                except NoConnectionError as error:
                    self.silent[source] = str(error)
                except (RefusedError, UnreachableError):
                    pass  # Somebody answers.
                else:
                    return
                if source not in self.silent:
                    break
                if attempt == 0:
                    self.stop.wait(min(self.patience.pause, 1.0))
            if source in self.silent:
                self.say(f"{source.name}: {self.silent[source]}")

    def _remote_size(self, path: Path) -> int:
        for source in list(self.sources):
            if source in self.unreachable or source in self.silent:
                continue
            try:
                url = source.address(path.relative_to(self.data_dir).as_posix())
                return remote_size(url, self.patience) or 0
            except RefusedError:
                continue
            except UnreachableError:
                self.unreachable.add(source)
        return 0

    def _part(self, path: Path) -> Path:
        return self.folder / f"{path.name}.part"

    def _report(self, gained: int) -> None:
        with self.lock:
            self.done += gained
            if self.progress is not None:
                self.progress(self.done, max(self.done, sum(self.sizes.values())))


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
