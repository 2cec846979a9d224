"""One file over HTTP: resumed where it broke off, retried with growing pauses."""

import base64
import contextlib
import errno
import http.client
import json
import random
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from bench.data._sources import without_secrets

_CHUNK = 1 << 20
_GREETING = 10.0  # Seconds that a source has to answer at all.
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try.

    Attributes:
        retries: attempts that may fail in a row without a byte more than before.
        pause: seconds before the first retry; doubled each time, with some chance.
        longest_pause: seconds at most, also when the server asks for more.
        timeout: seconds without an answer or a byte that count as a broken connection.
    """

    retries: int = 5
    pause: float = 1.0
    longest_pause: float = 60.0
    timeout: float = 20.0

    def __post_init__(self) -> None:
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; expected 0 or more")


class RefusedError(Exception):
    """This source does not have the file, or serves something else; the text says which."""


class UnreachableError(Exception):
    """This source could not be read from, however often it was tried."""


class NoConnectionError(UnreachableError):
    """Nobody answers at this source: no network, no such host, or nothing listens there."""


class _InterruptedError(Exception):
    """An attempt that may succeed when repeated."""

    def __init__(self, reason: str, wait: float | None = None, *, connected: bool = True) -> None:
        super().__init__(reason)
        self.wait = wait
        self.connected = connected


def remote_size(url: str, patience: Patience) -> int | None:
    """Length of a file in bytes, None if the server does not tell. Asks once.

    Raises:
        RefusedError: if the source does not have it.
        NoConnectionError: if nobody is there.
        UnreachableError: if there is no sound answer.
    """
    patience = replace(patience, timeout=min(patience.timeout, _GREETING))
    try:
        with _open(_request(url, method="HEAD"), patience) as response:
            _refuse_pages(response)
            length = response.headers.get("Content-Length")
            return int(length) if length and length.isdigit() else None
    except _InterruptedError as error:
        kind = UnreachableError if error.connected else NoConnectionError
        raise kind(str(error)) from error


def transfer(
    url: str,
    part: Path,
    *,
    patience: Patience,
    stop: Event,
    report: Callable[[int], None],
    largest: int = 1 << 62,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Download a file; what is there of it already is kept and continued.

    Args:
        url: http or https address.
        part: the partial file. A JSON file beside it remembers what it is a part of.
        patience: how often to retry.
        stop: set by another thread to give up; the part is kept.
        report: called with the bytes gained (or lost, negative) since the last call.
        largest: bytes that the file can have; a server that sends more serves something else.
        say: told what went wrong before each pause.

    Returns:
        Whether the file was put together from more than one answer.

    Raises:
        RefusedError: if the source does not have the file.
        UnreachableError: if it could not be read to the end.
        OSError: if the part cannot be written; nothing is retried then.
    """
    failures, best, attempts = 0, _size(part), 0
    while True:
        attempts += 1
        resumed = attempts > 1 or _size(part) > 0
        try:
            _attempt(url, part, patience, stop, report, largest)
            return resumed
        except _InterruptedError as error:
            # Only more than was ever there counts as progress: a server that ignores ranges and
            # always breaks off would otherwise be asked for ever.
            failures = 0 if _size(part) > best else failures + 1
            best = max(best, _size(part))
            if failures > patience.retries or stop.is_set():
                raise UnreachableError(f"{error} ({attempts} attempts)") from error
            pause = patience.pause * 2 ** max(0, failures - 1) * random.uniform(0.75, 1.25)  # noqa: S311
            pause = min(patience.longest_pause, max(pause, error.wait or 0.0))
            say(f"{error}; trying again in {pause:.0f} s ({failures} of {patience.retries})")
            stop.wait(pause)


def _attempt(
    url: str,
    part: Path,
    patience: Patience,
    stop: Event,
    report: Callable[[int], None],
    largest: int,
) -> None:
    """Ask once for what is missing and write it behind what is there."""
    state = _read_state(part)
    have = _size(part)
    request = _request(url)
    request.add_header("Accept-Encoding", "identity")
    if have:
        request.add_header("Range", f"bytes={have}-")
        if state.get("url") == without_secrets(url) and state.get("validator"):
            request.add_header("If-Range", state["validator"])
    try:
        response = _open(request, patience)
    except urllib.error.HTTPError as error:
        with contextlib.closing(error):
            # 416: there is nothing behind what we have. It may be all of it.
            if _total(error) == have:
                return
            discard(part, report)
            raise _InterruptedError("the partial file did not fit the served one") from error
    with response:
        _refuse_pages(response)
        total = _total(response)
        if have and (response.status != 206 or not _continues(response, have, state, total)):
            discard(part, report)
            have = 0
            if response.status == 206:
                raise _InterruptedError("the partial file did not fit the served one")
        if total is not None and total > largest:
            raise RefusedError(f"it serves {total:,} bytes, more than the file can have")
        if total is not None and total - have > (free := shutil.disk_usage(part.parent).free):
            raise OSError(
                errno.ENOSPC,
                f"{(total - have) / 1e9:.2f} GB are missing and {free / 1e9:.2f} GB are free",
                str(part),
            )
        _write_state(part, url, response, total)
        with part.open("ab") as file:
            for chunk in _chunks(response, stop):
                if have == 0 and not chunk.startswith(b"PK"):
                    raise RefusedError("what it serves is no archive")
                if have + len(chunk) > (largest if total is None else total):
                    discard(part, report)
                    raise RefusedError("it sends more bytes than the file can have")
                file.write(chunk)
                have += len(chunk)
                report(len(chunk))
    if total is not None and have < total:
        raise _InterruptedError(f"the connection ended {total - have} bytes early")


def _request(url: str, method: str = "GET") -> urllib.request.Request:
    """A request; user and password of the address go to its host alone, not where it redirects."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(  # noqa: S310 (http or https)
        urlunsplit(parts._replace(netloc=host)), method=method
    )
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = base64.b64encode(pair.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https, but never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        scheme = urlsplit(newurl).scheme
        if scheme != "https" and scheme != req.type:
            raise RefusedError(f"it redirects to an address with {scheme}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_SameScheme)


def _open(request: urllib.request.Request, patience: Patience) -> http.client.HTTPResponse:
    """Send a request; errors sorted into those that pass and those that do not."""
    try:
        response: http.client.HTTPResponse = _OPENER.open(request, timeout=patience.timeout)
        return response
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise
        with contextlib.closing(error):
            reason = f"status {error.code} ({error.reason})"
            if error.code not in _TEMPORARY:
                raise RefusedError(reason) from error
            wait = error.headers.get("Retry-After", "")
            raise _InterruptedError(reason, float(wait) if wait.isdigit() else None) from error
    except urllib.error.URLError as error:
        raise _InterruptedError(f"no connection ({error.reason})", connected=False) from error
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(
            f"the connection broke ({error or type(error).__name__})"
        ) from error


def _chunks(response: http.client.HTTPResponse, stop: Event) -> Iterator[bytes]:
    while not stop.is_set():
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(
                f"the connection broke ({error or type(error).__name__})"
            ) from error
        if not chunk:
            return
        yield chunk
    raise _InterruptedError("given up")


def _refuse_pages(response: http.client.HTTPResponse) -> None:
    if response.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise RefusedError("it answers with a web page (a login or error page?)")


def _continues(
    response: http.client.HTTPResponse, have: int, state: dict[str, Any], total: int | None
) -> bool:
    """Whether an answer begins where the part ends, and is of the same file."""
    begins = (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")
    return begins and state.get("total") in (None, total)


def _total(response: Any) -> int | None:
    """Length of the whole file, from the headers of an answer."""
    total = (response.headers.get("Content-Range") or "").rpartition("/")[2]
    if not total and getattr(response, "status", None) == 200:
        total = response.headers.get("Content-Length") or ""
    return int(total) if total.isdigit() else None


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _state_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_state(part: Path) -> dict[str, Any]:
    try:
        state = json.loads(_state_file(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return state if isinstance(state, dict) else {}


def _write_state(
    part: Path, url: str, response: http.client.HTTPResponse, total: int | None
) -> None:
    validator = response.headers.get("ETag") or ""
    if not validator or validator.startswith("W/"):  # Weak ones do not vouch for every byte.
        validator = response.headers.get("Last-Modified") or ""
    state = {"url": without_secrets(url), "validator": validator, "total": total}
    _state_file(part).write_text(json.dumps(state), encoding="utf-8")


def discard(part: Path, report: Callable[[int], None]) -> None:
    """Throw away a partial file and what is remembered of it."""
    report(-_size(part))
    part.unlink(missing_ok=True)
    _state_file(part).unlink(missing_ok=True)
