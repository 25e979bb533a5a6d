"""Whatever is sent to any endpoint, the answer is 2xx or 4xx and says why: never 500, and nothing is held afterwards."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from byol_jax.evaluate import Probe
from byol_jax.serve import Index, Limits, Model
from byol_jax.serve.app import Service, create_app
from tests.serve.asking import encoded

LIMITS = Limits(bytes=20_000, pixels=5_000, characters=200, count=4, queue=8)
FILES = [encoded(20, 14, kind=kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")] + [encoded(5, 5, kind="PNG", mode="P"), b""]


class Running:
    """A service in an event loop of its own, asked one request at a time."""

    def __init__(self, model: Model) -> None:
        size = model.encoder(np.stack([model.rows[0]])).shape[1]
        probe = Probe(np.zeros((size, 3), np.float32), np.zeros(3, np.float32), ["a", "b", "c"])
        index = Index(np.ones((5, size), np.float32), {"label": np.zeros(5, np.int32)})
        self.service = Service(model, limits=LIMITS, probe=probe, index=index, sizes=(8,))
        transport = httpx.ASGITransport(create_app(self.service), raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://test")
        self.loop = asyncio.new_event_loop()
        self.life = self.service.running()
        self.loop.run_until_complete(self.life.__aenter__())

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        return self.loop.run_until_complete(self.client.request(method, path, **request))

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.life.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module", params=["images", "texts"])
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    made = Running(request.getfixturevalue(request.param))
    yield made
    made.close()


@st.composite
def damaged(draw: st.DrawFn, contents: st.SearchStrategy[bytes]) -> bytes:
    """Something right, of which some bytes are changed, cut off or put in."""
    content = bytearray(draw(contents))
    for place, byte in draw(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)):
        if content:
            content[place % len(content)] = byte
    cut = draw(st.integers(0, 40))
    return bytes(content[: len(content) - cut if cut < 20 else None]) + draw(st.binary(max_size=5))


BASE64 = st.sampled_from(FILES).map(lambda file: base64.b64encode(file).decode())
VALUES = st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=20) | BASE64, lambda one: st.lists(one, max_size=5))
BODIES = st.dictionaries(st.sampled_from(["images", "texts", "image", ""]), VALUES, max_size=2) | VALUES
JSON = BODIES.map(lambda body: json.dumps(body).encode())
FORM = st.lists(st.sampled_from(FILES), max_size=6).map(
    lambda files: b"".join(b'--b\r\nContent-Disposition: form-data; name="i"\r\n\r\n' + file + b"\r\n" for file in files) + b"--b--\r\n"
)
CONTENTS = st.binary(max_size=300) | damaged(st.sampled_from(FILES)) | damaged(JSON) | JSON | damaged(FORM) | FORM | st.just(bytes(20_001))
TYPES = st.sampled_from(
    ["image/png", "image/jpeg", "application/json", "multipart/form-data; boundary=b", "multipart/form-data", "text/plain", "", "a/b; c=\\"]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
PATHS = st.sampled_from(["/embed", "/classify", "/similar"])
QUERIES = st.dictionaries(st.sampled_from(["k", "top", "x"]), st.integers(-2, 200).map(str) | st.text(max_size=5), max_size=2)
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(running: Running, answer: httpx.Response) -> None:
    assert answer.status_code // 100 in (2, 4), answer.text
    if answer.status_code // 100 == 4:
        error = answer.json()["error"]
        assert error["code"]
        assert error["message"]
    assert running.service.batcher.held == 0


@FUZZ
@given(path=PATHS, query=QUERIES, kind=TYPES, content=CONTENTS)
def test_any_body(running: Running, path: str, query: dict[str, str], kind: str, content: bytes) -> None:
    check(running, running.ask("POST", path, params=query, content=content, headers={"Content-Type": kind}))


@FUZZ
@given(path=PATHS, content=damaged(st.sampled_from(FILES)), data=st.data())
def test_files_and_texts_that_are_nearly_right(running: Running, path: str, content: bytes, data: st.DataObject) -> None:
    if running.service.model.kind == "texts":
        texts = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=210), max_size=5))
        check(running, running.ask("POST", path, json={"texts": texts}))
    else:
        check(running, running.ask("POST", path, content=content, headers={"Content-Type": "image/png"}))


@settings(FUZZ, max_examples=50)
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]),
    path=st.sampled_from(["/", "/healthz", "/metrics", "/openapi.json", "/docs", "/embed"])
    | st.binary(max_size=8).map(lambda name: "/" + quote(name)),
)
def test_any_path_and_method(running: Running, method: str, path: str) -> None:
    answer = running.ask(method, path)
    assert answer.status_code // 100 in (2, 4)
    assert running.service.batcher.held == 0
