"""Google's storage in memory: as fsspec knows it (for etils.epath), and over HTTP on this machine (for orbax' tensorstore)."""

from __future__ import annotations

import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from fsspec.implementations.memory import MemoryFileSystem


class Bucket(MemoryFileSystem):
    """All buckets; ``store`` maps "/bucket/name" to what is in it."""

    protocol = ("gcs", "gs")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).removeprefix("gs://"))


class _Requests(BaseHTTPRequestHandler):
    """Upload, read, list and delete: https://cloud.google.com/storage/docs/json_api"""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, name = (url.path.split("/b/")[1].split("/o") + [""])[:2]
        root = f"/{bucket}/"
        path = root + (asked.get("name", "") or unquote(name.removeprefix("/")))
        if self.command == "POST":
            Bucket().pipe_file(path, sent)
            self._reply(_about(path))
        elif path == root:
            keys = sorted(key for key in Bucket.store if key.startswith(root))
            low, high = asked.get("startOffset", ""), asked.get("endOffset", "\U0010ffff")
            self._reply({"items": [_about(key) for key in keys if low <= key.removeprefix(root) < high]})
        elif path not in Bucket.store:
            self._reply({}, code=404)
        elif self.command == "DELETE":
            Bucket().rm_file(path)
            self._reply({})
        else:
            self._reply(_about(path), Bucket.store[path].getvalue() if asked.get("alt") == "media" else None)

    do_GET = do_POST = do_DELETE = _answer

    def _reply(self, about: dict[str, Any], media: bytes | None = None, code: int = 200) -> None:
        body = json.dumps(about).encode() if media is None else media
        wanted = self.headers.get("Range") if media is not None else None
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            end = min(int(last or len(body)), len(body) - 1)
            whole, body, code = len(body), body[int(first) : end + 1], 206
        self.send_response(code)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{end}/{whole}")
        for header, value in {"x-goog-generation": about.get("generation", "0"), "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)


def _about(path: str) -> dict[str, str]:
    data = Bucket.store[path].getvalue()
    _, bucket, name = path.split("/", 2)
    return {"kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(data)), "generation": str(1 + zlib.crc32(data))}


def serve() -> ThreadingHTTPServer:
    """A server on a free port, already answering."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Requests)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
