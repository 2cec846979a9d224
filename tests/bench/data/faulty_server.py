"""A web server that misbehaves on request."""

import hashlib
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


@dataclass
class Site:
    """Files by path, and what to do at the next requests for each.

    A fault is a status (404, 429, ...), or one of `page`, `page as data`, `wrong`, `truncated`,
    `no range`, `stall`, `endless` (no length, 64 MB), `to URL` (a redirection), or ("drop", n):
    close the connection after n bytes. Without one, a request
    is answered as it should be. A list is used up request by request; `always` stays.
    """

    files: dict[str, bytes]
    faults: dict[str, list[object]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, object] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    credentials: set[str | None] = field(default_factory=set)
    etags: bool = True
    url: str = ""

    def gets(self, path: str) -> list[str]:
        """The Range headers of the GET requests for a file."""
        return [span for method, asked, span in self.requests if (method, asked) == ("GET", path)]


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serve a site on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(head=True)

        def do_GET(self) -> None:
            self._answer(head=False)

        def _answer(self, *, head: bool) -> None:
            path = self.path.lstrip("/")
            span = self.headers.get("Range", "")
            site.requests.append((self.command, path, span))
            fault = site.always.get(path)
            if not head and site.faults[path]:
                fault = site.faults[path].pop(0)
            content = site.files.get(path)
            site.credentials.add(self.headers.get("Authorization"))
            if isinstance(fault, str) and fault.startswith("to "):
                self.send_response(302)
                self.send_header("Location", fault.removeprefix("to "))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "endless":
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                self._write(b"" if head else b"PK" + bytes(64 << 20))
                return
            if fault in ("page", "page as data"):
                self.send_response(200)
                kind = "text/html; charset=utf-8" if fault == "page" else "application/octet-stream"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(PAGE)))
                self.end_headers()
                self._write(b"" if head else PAGE)
                return
            if isinstance(fault, int) or content is None:
                self.send_response(fault if isinstance(fault, int) else 404)
                self.send_header("Retry-After", "0")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            tag = hashlib.sha256(content).hexdigest()
            if fault == "wrong":
                content = content[:-200] + bytes(200)
            if fault == "truncated":
                content = content[: len(content) // 2]
            begin = 0
            asks = span and fault != "no range" and self.headers.get("If-Range", tag) == tag
            if asks:
                begin = int(span.removeprefix("bytes=").rstrip("-"))
                if begin >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if asks else 200)
            if asks:
                self.send_header(
                    "Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}"
                )
            if site.etags:
                self.send_header("ETag", tag)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            if head:
                return
            if fault == "stall":
                self._write(content[begin : begin + 100])
                threading.Event().wait(1.0)
                self.close_connection = True
                return
            end = len(content)
            if isinstance(fault, tuple):
                end = min(end, begin + fault[1])
                self.close_connection = True
            self._write(content[begin:end])

        def _write(self, content: bytes) -> None:
            try:
                self.wfile.write(content)
            except OSError:
                self.close_connection = True  # The client hung up, as some tests want it to.

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
