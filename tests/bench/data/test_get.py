import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.data import (
    DataRecord,
    DownloadFailed,
    DownloadSource,
    Patience,
    download_sources,
    get,
    inspect_file,
    load,
)
from bench.data._sources import Checksum, ChecksumLock
from bench.errors import RunLockedError
from bench.storage import RunLock

from .faulty_server import Site, serve

MAZE = "pointmaze-medium-navigate-v0"
TRAIN, VAL = f"{MAZE}.npz", f"{MAZE}-val.npz"
QUICK = Patience(retries=3, pause=0.001, longest_pause=0.01, timeout=0.5)


@pytest.fixture
def files(tiny_dir: Path) -> dict[str, bytes]:
    return {name: (tiny_dir / name).read_bytes() for name in (TRAIN, VAL)}


@pytest.fixture
def site(files: dict[str, bytes]) -> Iterator[Site]:
    with serve(Site(dict(files))) as running:
        yield running


@pytest.fixture
def mirror(files: dict[str, bytes]) -> Iterator[Site]:
    with serve(Site(dict(files))) as running:
        yield running


def _sources(*sites: Site) -> list[DownloadSource]:
    return [DownloadSource(f"site {i}", site.url) for i, site in enumerate(sites)]


def _no_temporary_files(folder: Path) -> None:
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_a_download_is_verified_and_recorded(
    site: Site, tmp_path: Path, files: dict[str, bytes]
) -> None:
    calls: list[tuple[int, int]] = []
    done = get(
        MAZE,
        tmp_path,
        sources=_sources(site),
        patience=QUICK,
        progress=lambda *call: calls.append(call),
    )
    assert done.files == (tmp_path / TRAIN, tmp_path / VAL)
    assert set(done.fetched) == set(done.files)
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content
    total = sum(map(len, files.values()))
    assert calls[0] == (0, total)
    assert calls[-1] == (total, total)
    record = DataRecord.read(tmp_path / f"{MAZE}.json")
    assert record is not None
    assert (record.source, record.origin) == ("downloaded", site.url)
    assert record.files[TRAIN] == inspect_file(tmp_path / TRAIN)
    assert set(json.loads((tmp_path / "checksums.json").read_text())) == {TRAIN, VAL}
    assert load(MAZE, ["task1"], tmp_path).source == "downloaded"
    _no_temporary_files(tmp_path)

    before = len(site.requests)
    again = get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert (again.fetched, again.files) == ((), done.files)
    assert len(site.requests) == before


@pytest.mark.parametrize(
    "faults",
    [
        [("drop", 5000)],
        [("drop", 0)],
        [("drop", 700), ("drop", 1), ("drop", 3000)],
        [503, 429, 500],
        [("drop", 2000), 503, "no range"],
        ["stall"],
        [408, ("drop", 4000), 429],
    ],
    ids=str,
)
@pytest.mark.parametrize("etags", [True, False])
def test_passing_faults_are_survived(
    site: Site, tmp_path: Path, files: dict[str, bytes], faults: list[object], etags: bool
) -> None:
    site.etags = etags
    site.faults[TRAIN] = list(faults)
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert (tmp_path / TRAIN).read_bytes() == files[TRAIN]
    assert not site.faults[TRAIN]
    _no_temporary_files(tmp_path)


def test_what_was_received_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.faults[TRAIN] = [("drop", 2000), ("drop", 500)]
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert site.gets(TRAIN) == ["", "bytes=2000-", "bytes=2500-"]


def test_a_later_call_continues(site: Site, tmp_path: Path, files: dict[str, bytes]) -> None:
    site.faults[TRAIN] = [("drop", 3000), *([503] * 10)]
    with pytest.raises(DownloadFailed, match="status 503") as caught:
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert "rerun the command to resume" in str(caught.value)
    assert "bench data generate" in str(caught.value)
    assert not (tmp_path / TRAIN).exists()
    site.faults[TRAIN] = []
    site.requests.clear()
    calls: list[tuple[int, int]] = []
    get(
        MAZE,
        tmp_path,
        sources=_sources(site),
        patience=QUICK,
        progress=lambda *call: calls.append(call),
    )
    assert site.gets(TRAIN) == ["bytes=3000-"]
    assert calls[0][0] >= 3000
    assert (tmp_path / TRAIN).read_bytes() == files[TRAIN]


def test_a_file_that_changed_meanwhile_is_not_mixed(
    site: Site, tmp_path: Path, maze_arrays: dict[str, np.ndarray]
) -> None:
    site.faults[TRAIN] = [("drop", 3000), *([503] * 10)]
    with pytest.raises(DownloadFailed):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    site.faults[TRAIN] = []
    np.savez(tmp_path / "new.npz", **maze_arrays)
    site.files[TRAIN] = (tmp_path / "new.npz").read_bytes()
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert (tmp_path / TRAIN).read_bytes() == site.files[TRAIN]


def test_a_mirror_continues_what_the_first_source_began(
    site: Site, mirror: Site, tmp_path: Path, files: dict[str, bytes]
) -> None:
    site.faults[TRAIN] = [("drop", 3000), *([503] * 10)]
    get(MAZE, tmp_path, sources=_sources(site, mirror), patience=QUICK)
    assert mirror.gets(TRAIN) == ["bytes=3000-"]
    assert (tmp_path / TRAIN).read_bytes() == files[TRAIN]


def test_a_mirror_with_another_file_is_not_mixed_in(
    site: Site, mirror: Site, tmp_path: Path, maze_arrays: dict[str, np.ndarray]
) -> None:
    np.savez_compressed(tmp_path / "other.npz", **maze_arrays)
    mirror.files[TRAIN] = (tmp_path / "other.npz").read_bytes()
    site.faults[TRAIN] = [("drop", 300), *([503] * 10)]
    get(MAZE, tmp_path, sources=_sources(site, mirror), patience=QUICK)
    assert (tmp_path / TRAIN).read_bytes() == mirror.files[TRAIN]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (404, "status 404"),
        (403, "status 403"),
        ("page", "answers with a web page"),
        ("page as data", "no archive"),
        ("truncated", "wrong content"),
        ("wrong", "wrong content"),
        (503, "status 503"),
        (429, "status 429"),
    ],
)
def test_the_next_source_helps_where_one_cannot(
    site: Site,
    mirror: Site,
    tmp_path: Path,
    files: dict[str, bytes],
    fault: object,
    reason: str,
) -> None:
    site.always[TRAIN] = fault
    done = get(MAZE, tmp_path, sources=_sources(site, mirror), patience=QUICK)
    assert set(done.fetched) == {tmp_path / TRAIN, tmp_path / VAL}
    assert (tmp_path / TRAIN).read_bytes() == files[TRAIN]
    record = DataRecord.read(tmp_path / f"{MAZE}.json")
    assert record is not None
    assert mirror.url in record.origin

    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    site.requests.clear()
    with pytest.raises(DownloadFailed, match=f"site 0: .*{reason}"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert not (tmp_path / TRAIN).exists()
    if fault in (429, 503):
        assert len(site.gets(TRAIN)) == QUICK.retries + 1


def test_a_wrong_byte_is_found_by_a_known_checksum(
    site: Site,
    mirror: Site,
    tmp_path: Path,
    files: dict[str, bytes],
    maze_arrays: dict[str, np.ndarray],
) -> None:
    """Contents that are sound data, but not those expected."""
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    (tmp_path / TRAIN).unlink()
    maze_arrays["actions"][0, 0] = 0.5
    np.savez(tmp_path / "other.npz", **maze_arrays)
    site.files[TRAIN] = (tmp_path / "other.npz").read_bytes()
    with pytest.raises(DownloadFailed, match=r"SHA-256 .*, expected \d+ with"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    get(MAZE, tmp_path, sources=_sources(site, mirror), patience=QUICK)
    assert (tmp_path / TRAIN).read_bytes() == files[TRAIN]


def test_a_server_that_always_breaks_off_is_given_up(site: Site, tmp_path: Path) -> None:
    site.always[TRAIN] = ("drop", 0)
    with pytest.raises(DownloadFailed, match=r"\(4 attempts\)"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)


def test_no_server_at_all(tmp_path: Path, site: Site) -> None:
    nowhere = DownloadSource("nowhere", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match=r"nowhere: no connection"):
        get(MAZE, tmp_path, sources=[nowhere], patience=QUICK)
    get(MAZE, tmp_path, sources=[nowhere, *_sources(site)], patience=QUICK)
    with pytest.raises(DownloadFailed, match="antsoccer-arena-navigate-v0") as caught:
        get("antsoccer-arena-navigate-v0", tmp_path, sources=[], patience=QUICK)
    assert "bench data generate" not in str(caught.value)


def test_validation_files_may_be_missing(site: Site, tmp_path: Path) -> None:
    del site.files[VAL]
    done = get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert (done.files, done.missing) == ((tmp_path / TRAIN,), (tmp_path / VAL,))
    done = get(MAZE, tmp_path, sources=_sources(site), validation=False, patience=QUICK)
    assert done.missing == ()


def test_damaged_files_on_the_disk_are_replaced(
    site: Site, tmp_path: Path, files: dict[str, bytes]
) -> None:
    """OGBench's downloader keeps truncated files and login pages for ever."""
    (tmp_path / TRAIN).write_bytes(files[TRAIN][:1000])
    (tmp_path / VAL).write_bytes(files[VAL])
    done = get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert done.replaced == done.fetched == (tmp_path / TRAIN,)
    record = DataRecord.read(tmp_path / f"{MAZE}.json")
    assert record is not None
    # The validation file was there before, and nobody knows from where.
    assert (record.source, record.origin) == ("unknown", site.url)
    assert set(record.files) == {TRAIN, VAL}


def test_generated_data_are_not_replaced_unasked(
    site: Site, tmp_path: Path, tiny_dir: Path
) -> None:
    for path in tiny_dir.glob(f"{MAZE}*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(ValueError, match="was generated here"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK, overwrite=True)
    record = DataRecord.read(tmp_path / f"{MAZE}.json")
    assert record is not None
    assert (record.source, record.recipe) == ("downloaded", {})


def test_ten_million_are_fetched_as_shards(
    tmp_path: Path, files: dict[str, bytes], maze_arrays: dict[str, np.ndarray]
) -> None:
    folder = "pointmaze-medium-navigate-100m-v0"
    site = Site({})
    for i in range(12):
        maze_arrays["qvel"][0, 0] = i
        np.savez(tmp_path / "shard.npz", **maze_arrays)
        content = (tmp_path / "shard.npz").read_bytes()
        site.files[f"{folder}/pointmaze-medium-navigate-v0-{i:03d}.npz"] = content
    site.faults[f"{folder}/pointmaze-medium-navigate-v0-004.npz"] = [("drop", 2500), 503]
    with serve(site):
        done = get(
            "pointmaze-medium-navigate-10m-v0", tmp_path, sources=_sources(site), patience=QUICK
        )
    assert len(done.files) == 10
    assert len(done.missing) == 10
    data = load("pointmaze-medium-navigate-10m-v0", ["task1"], tmp_path)
    assert data.transitions == 1200
    assert data.source == "downloaded"


def test_too_little_space_is_said_before_anything_is_written(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 100, 100))
    with pytest.raises(OSError, match=r"0.00 GB must be downloaded but only 0.00 GB are free"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert not site.gets(TRAIN)


def test_a_write_error_is_not_retried(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([10**9, 100, 100])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, next(free, 100)))
    with pytest.raises(OSError, match="are missing and"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert len(site.gets(TRAIN)) <= 1


def test_an_interruption_stops_the_threads(site: Site, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK, progress=interrupt)
    assert not (tmp_path / TRAIN).exists()
    get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)


def test_two_downloads_do_not_share_files(site: Site, tmp_path: Path) -> None:
    with RunLock(tmp_path / f".{MAZE}.download"), pytest.raises(RunLockedError):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)


def test_sources_come_from_options_environment_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA_SOURCES", "http://two.example/data https://three.example")
    sources = download_sources(["https://one.example/a/"])
    assert [s.url for s in sources[:3]] == [
        "https://one.example/a/",
        "http://two.example/data",
        "https://three.example",
    ]
    assert [s.name for s in sources[3:]] == ["ogbench", "huggingface", "huggingface (TRQAM)"]
    assert sources[0].address("d/x y.npz") == "https://one.example/a/d/x%20y.npz"
    hub = sources[4].address("scene-play-v0.npz")
    assert hub.endswith("/resolve/main/scene-play-v0.npz")
    assert sources[4].repository in hub
    giant = sources[5].address("antmaze-giant-navigate-10m-v0/antmaze-giant-navigate-v0-003.npz")
    assert giant.endswith("10m-v0/resolve/main/antmaze-giant-navigate-v0-003.npz")


@pytest.mark.parametrize(
    "url", ["file:///etc", "ftp://u:secret@x", "just text", "http://u:secret@x:port", "http://"]
)
def test_addresses_are_http(url: str) -> None:
    with pytest.raises(ValueError, match="http or https") as caught:
        download_sources([url])
    assert "secret" not in str(caught.value)


def test_passwords_go_to_their_host_and_nowhere_else(
    site: Site, mirror: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BENCH_DATA_SOURCES", raising=False)
    address = site.url.replace("http://", "http://user:secret@")
    (source, *_) = download_sources([address])
    site.always[TRAIN] = f"to {mirror.url}/{TRAIN}"
    get(MAZE, tmp_path, sources=[source], patience=QUICK)
    assert site.credentials == {"Basic dXNlcjpzZWNyZXQ="}
    assert mirror.credentials == {None}
    record = DataRecord.read(tmp_path / f"{MAZE}.json")
    assert record is not None
    assert record.origin == site.url
    (tmp_path / TRAIN).unlink()
    site.always[TRAIN] = 404
    with pytest.raises(DownloadFailed, match="status 404") as caught:
        get(MAZE, tmp_path, sources=[source], patience=QUICK)
    assert "secret" not in str(caught.value) + repr(source)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "//"])
def test_redirections_stay_with_the_scheme(target: str, site: Site, tmp_path: Path) -> None:
    site.always[TRAIN] = f"to {target}"
    with pytest.raises(DownloadFailed, match="site 0: "):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert not (tmp_path / TRAIN).exists()


def test_a_stream_without_a_length_has_an_end(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.always[TRAIN] = "endless"
    monkeypatch.setattr("bench.data._get._BYTES_A_ROW", 0)
    with pytest.raises(DownloadFailed, match="more bytes than the file can have"):
        get(MAZE, tmp_path, sources=_sources(site), patience=QUICK)
    assert not list(tmp_path.rglob("*.part"))


def test_what_nobody_publishes_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="perhaps cube-triple-play-v0"):
        get("cube-tripel-play-v0", tmp_path)
    with pytest.raises(ValueError, match="more than the 10,000,000,000 transitions"):
        get("cube-double-play-999999999b-v0", tmp_path)
    assert not list(tmp_path.iterdir())


def test_waiting_is_said(tmp_path: Path, site: Site) -> None:
    said: list[str] = []
    nowhere = DownloadSource("nowhere", "http://127.0.0.1:9")
    site.faults[TRAIN] = [503]
    get(MAZE, tmp_path, sources=[nowhere, *_sources(site)], patience=QUICK, say=said.append)
    assert said[0] == "asking nowhere"
    assert said[1].startswith("nowhere: no connection")
    assert said[-1] == "site 0: status 503 (Service Unavailable); trying again in 0 s (1 of 3)"


def test_a_set_that_one_source_has_keeps_its_size(
    site: Site, tmp_path: Path, files: dict[str, bytes]
) -> None:
    name = "pointmaze-medium-navigate-2m-v0"
    for i in range(2):
        site.files[f"{name}/pointmaze-medium-navigate-v0-{i:03d}.npz"] = files[TRAIN]
    only = DownloadSource("authors", site.url, dataset=name)
    done = get(name, tmp_path, sources=[only], patience=QUICK, validation=False)
    assert [path.parent.name for path in done.files] == [name, name]
    with pytest.raises(DownloadFailed, match="Tried none"):
        get(MAZE, tmp_path / "other", sources=[only], patience=QUICK)


def test_checksums_are_recorded_once(tmp_path: Path) -> None:
    lock = ChecksumLock(tmp_path)
    known = lock.expected("cube-double-play-v0.npz")
    assert known is not None
    assert known.bytes == 297_435_656
    lock.record("new.npz", Checksum(3, "ab"))
    lock.record("new.npz", Checksum(4, "cd"))
    lock.record("cube-double-play-v0.npz", Checksum(4, "cd"))
    again = ChecksumLock(tmp_path)
    assert again.expected("new.npz") == Checksum(3, "ab")
    assert again.expected("cube-double-play-v0.npz") == known
    assert again.expected("none.npz") is None
    (tmp_path / "checksums.json").write_text("[1]")
    with pytest.raises(ValueError, match="not a list of checksums"):
        ChecksumLock(tmp_path)


def test_bad_settings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retries is -1; expected 0 or more"):
        Patience(retries=-1)
    with pytest.raises(ValueError, match="connections is 0"):
        get(MAZE, tmp_path, connections=0)
    with pytest.raises(ValueError, match="either a url or a repository"):
        DownloadSource("none")
