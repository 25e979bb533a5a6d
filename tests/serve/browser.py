"""Headless Chromium by chromedriver's own protocol (W3C WebDriver): no package is needed."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=900,1000"]


def missing() -> str | None:
    """Why there is no browser here; None if there is one."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here (Debian: chromium, chromium-driver)" if lacking else None


class Browser:
    """One window."""

    def __init__(self, address: str) -> None:
        wanted = {"goog:chromeOptions": {"args": OPTIONS, "binary": shutil.which("chromium")}, "goog:loggingPrefs": {"browser": "ALL"}}
        self._base = address
        self._base = f"{address}/session/{self._call('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, content, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a script returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def _element(self, css: str) -> str:
        return next(iter(self._call("POST", "/element", {"using": "css selector", "value": css}).values()))

    def write(self, css: str, text: str) -> None:
        """Types into a field; of files, their paths, one a line."""
        self._call("POST", f"/element/{self._element(css)}/value", {"text": text})

    def click(self, css: str) -> None:
        self._call("POST", f"/element/{self._element(css)}/click", {})

    def text(self, css: str) -> str:
        return self._call("GET", f"/element/{self._element(css)}/text")

    def wait(self, css: str, pattern: str) -> str:
        """The text of an element as soon as it has the pattern."""
        for _ in range(100):
            if re.search(pattern, found := self.text(css)):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{css} says {found!r}, not {pattern!r}")

    def complaints(self) -> list[str]:
        """Errors of scripts, and of what was not loaded."""
        return [line["message"] for line in self._call("POST", "/se/log", {"type": "browser"}) if line["level"] in ("SEVERE", "WARNING")]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))

    def close(self) -> None:
        self._call("DELETE", "")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, closed at the end."""
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as driver:
        try:
            assert driver.stdout is not None
            port = next(found[1] for line in driver.stdout if (found := re.search(r"started successfully on port (\d+)", line)))
            window = Browser(f"http://127.0.0.1:{port}")
            try:
                yield window
            finally:
                window.close()
        finally:
            driver.terminate()
