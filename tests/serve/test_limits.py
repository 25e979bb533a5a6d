"""Each limit's own answer, the key, overload, and time."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import numpy as np
import pytest

from byol_jax.evaluate import SentenceEncoder
from byol_jax.serve import Index, Limits, Model, image_model, text_model
from byol_jax.serve.app import Service
from tests.serve.asking import asked, encoded, metric, post

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
SMALL = Limits(bytes=3000, pixels=400, characters=50, count=2, seconds=20, neighbours=10, queue=4)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels, in 60 bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def form(*images: bytes) -> dict[str, Any]:
    return {"files": [("image", image) for image in images]}


def in_json(*images: bytes) -> dict[str, Any]:
    return {"json": {"images": [base64.b64encode(image).decode() for image in images]}}


@pytest.fixture(scope="module")
def service(images: Model) -> Service:
    return Service(image_model(images.encoder, SMALL), limits=SMALL, sizes=(8,))


def refused(answer: httpx.Response) -> tuple[int, str, str, Any, Any]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"], error.get("limit"), error.get("value")


@pytest.mark.parametrize(
    ("request_", "status", "code", "message", "limit", "value"),
    [
        ({"content": b"x" * 3001, "headers": PNG}, 413, "too_many_bytes", "3,001 bytes in the body; at most 3,000 are taken", 3000, 3001),
        (
            {"content": encoded(21, 20), "headers": PNG},
            413,
            "too_many_pixels",
            "420 pixels in images[0] (21 x 20); at most 400 are taken",
            400,
            420,
        ),
        (
            form(encoded(2, 2), bomb(30_000, 3)),
            413,
            "too_many_pixels",
            "90,000 pixels in images[1] (30000 x 3); at most 400 are taken",
            400,
            90_000,
        ),
        (in_json(*[encoded(2, 2)] * 3), 422, "too_many", "3 images in one request; at most 2 are taken", 2, 3),
        (form(*[encoded(2, 2)] * 9), 422, "too_many", "3 images in one request, and more to come; at most 2 are taken", 2, 3),
        ({"json": {"images": []}}, 422, "none", "there are no images in the request; give 1 to 2", 2, 0),
        ({"content": b"", "headers": PNG}, 422, "bad_image", "images[0]: is no BMP, JPEG, PNG or WEBP image", None, None),
        ({"content": encoded()[:100], "headers": PNG}, 422, "bad_image", "images[0]: cannot be decoded", None, None),
        (in_json(encoded(2, 2), b"GIF89a"), 422, "bad_image", "images[1]: is no BMP, JPEG, PNG or WEBP image", None, None),
        ({"json": {"images": ["*"]}}, 422, "bad_base64", "each is the base64 of an image file", None, None),
        ({"content": b"{", "headers": JSON}, 422, "bad_json", "the body: Invalid JSON", None, None),
        ({"content": b"[" * 2000, "headers": JSON}, 422, "bad_json", "the body: Invalid JSON: recursion limit", None, None),
        ({"json": {"image": "x"}}, 422, "bad_json", 'images: Field required; expected {"images": [string, ...]}', None, None),
        ({"json": {"images": [3]}}, 422, "bad_json", "images.0: Input should be a valid string", None, None),
        (
            {"content": b"--x\r\n\r\nab", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            422,
            "bad_form",
            "the form cannot be read",
            None,
            None,
        ),
        ({"content": b"--", "headers": {"Content-Type": "multipart/form-data"}}, 422, "bad_form", "the form cannot be read", None, None),
        (
            {"content": b"a", "headers": {"Content-Type": "text/plain"}},
            415,
            "wrong_type",
            "Content-Type text/plain: the run in this service is one of images; it takes image/*, multipart/form-data, application/json",
            None,
            None,
        ),
        ({"content": b"a"}, 415, "wrong_type", "no Content-Type: the run in this service is one of images", None, None),
    ],
)
def test_each_limit_has_its_own_answer(
    service: Service, request_: dict[str, Any], status: int, code: str, message: str, limit: Any, value: Any
) -> None:
    got = refused(post(service, "/embed", **request_))
    assert (*got[:2], *got[3:]) == (status, code, limit, value)
    assert message in got[2]
    assert service.batcher.held == 0


def test_a_bomb_is_told_by_its_header(images: Model) -> None:
    """2.7 GB of pixels, and more than Pillow opens at all; nothing is decoded."""
    service = Service(images, limits=Limits(), sizes=(8,))
    start = time.perf_counter()
    for width, height, value in ((60_000, 1_000, 60_000_000), (30_000, 30_000, None)):
        got = refused(post(service, "/embed", content=bomb(width, height), headers=PNG))
        assert (*got[:2], *got[3:]) == (413, "too_many_pixels", 50_000_000, value)
    assert time.perf_counter() - start < 2


def test_bodies_of_unknown_length_are_counted_as_they_come(service: Service) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1000
            yield bytes(1000)

    got = refused(post(service, "/embed", content=pieces(), headers=PNG))
    assert (*got[:2], *got[3:]) == (413, "too_many_bytes", 3000, 4000)
    assert sent <= 5000


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("/similar?k=11", "too_many_neighbours", "k = 11: at most 10 neighbours are told"),
        ("/similar?k=0", "bad_query", "k = '0': Input should be greater than or equal to 1"),
        ("/classify?top=all", "bad_query", "top = 'all': Input should be a valid integer"),
    ],
)
def test_queries(images: Model, path: str, code: str, message: str) -> None:
    index = Index(np.eye(6, dtype=np.float32), {})
    service = Service(images, limits=SMALL, index=index, sizes=(8,))
    got = refused(post(service, path, content=encoded(4, 4), headers=PNG))
    assert got[:2] == (422, code)
    assert message in got[2]


def test_texts(texts: Model, sentence_encoder: SentenceEncoder) -> None:
    service = Service(text_model(sentence_encoder, SMALL), limits=SMALL)
    for request, status, code, message in (
        ({"json": {"texts": ["a", "b" * 51]}}, 413, "too_many_characters", "51 characters in texts[1]; at most 50 are taken"),
        ({"json": {"texts": [" \n"]}}, 422, "bad_text", "texts[0]: ' \\n' has no token"),
        ({"content": b'{"texts": ["\\ud800"]}', "headers": JSON}, 422, "bad_json", "the body: Invalid JSON: unexpected end of hex escape"),
        ({"content": b"\xff", "headers": {"Content-Type": "text/plain"}}, 422, "bad_text", "not UTF-8 (invalid start byte at byte 0)"),
        ({"content": b"x", "headers": PNG}, 415, "wrong_type", "one of texts; it takes text/plain, application/json"),
        ({"json": {"texts": ["a"], "images": []}}, 422, "bad_json", "images: Extra inputs are not permitted"),
    ):
        got = refused(post(service, "/embed", **request))
        assert got[:2] == (status, code), got
        assert message in got[2]


def test_api_key(images: Model) -> None:
    service = Service(images, limits=SMALL, api_key="s3cret \u00e4", sizes=(8,))
    key = {"Authorization": "Bearer s3cret \u00e4".encode()}

    async def scenario(client: httpx.AsyncClient) -> None:
        for path in ("/embed", "/classify", "/similar"):
            assert refused(await client.post(path, content=b"x"))[:3] == (
                401,
                "unauthorized",
                "no API key: send the header 'Authorization: Bearer KEY'",
            )
        for wrong in ("Bearer s3cret", "s3cre", "Basic s3cret", "Bearer "):
            answer = await client.post("/embed", content=b"x", headers={"Authorization": wrong})
            assert refused(answer)[2].startswith("a wrong API key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers=key)).status_code == 200
        assert (await client.post("/embed", content=encoded(4, 4), headers=PNG | key)).status_code == 200
        assert [(await client.get(path)).status_code for path in ("/", "/healthz", "/openapi.json")] == [200] * 3
        assert (await client.get("/healthz")).json()["key"] is True

    asked(service, scenario)


def test_errors_of_http_have_the_same_form(service: Service) -> None:
    async def scenario(client: httpx.AsyncClient) -> None:
        assert refused(await client.get("/embed"))[:3] == (405, "wrong_method", "/embed does not take GET")
        assert refused(await client.get("/docs"))[:2] == (404, "not_found")

    asked(service, scenario)


class Gated:
    """A model whose encoder waits for ``go``."""

    def __init__(self, model: Model) -> None:
        self.go = threading.Semaphore(0)
        self._encoder, self.mesh = model.encoder, model.encoder.mesh
        self.open = True
        self.model = replace(model, encoder=self)

    def __call__(self, batch: np.ndarray, *, pad_to: int | None = None) -> np.ndarray:
        assert self.open or self.go.acquire(timeout=10)
        return self._encoder(batch, pad_to=pad_to)


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_overload_is_told_and_passes(images: Model) -> None:
    """Four rows have room. While the encoder is busy with them the fifth is turned away, before its body is read; then all goes on."""
    gated = Gated(images)
    service = Service(gated.model, limits=SMALL, sizes=(8,))
    gated.open = False

    async def scenario(client: httpx.AsyncClient) -> None:
        def embed(count: int = 1) -> Any:
            return client.post("/embed", **form(*[encoded(4, 4)] * count))

        early = [asyncio.create_task(embed(2)), asyncio.create_task(embed(1))]
        await until(lambda: service.batcher.held == 3)
        answer = await embed(2)  # its first row has room, its second has none
        assert refused(answer)[:2] == (503, "overloaded")
        assert "3 of 4" not in refused(answer)[2]
        early.append(asyncio.create_task(embed(1)))
        await until(lambda: service.batcher.held == 4)
        answer = await embed()
        assert refused(answer)[:2] == (503, "overloaded")
        assert refused(answer)[2] == "too many requests at once (4 of 4 rows are held, 1 more were wanted); come again in a second"
        assert answer.headers["Retry-After"] == "1"
        assert (await client.get("/healthz")).status_code == 200
        gated.open = True
        gated.go.release(9)
        assert [(await one).status_code for one in early] == [200] * 3
        assert (await embed(2)).status_code == 200

    asked(service, scenario)
    assert metric(service, "byol_refused_total", code="overloaded") == 2
    assert service.batcher.held == 0


def test_what_is_not_answered_in_time(images: Model) -> None:
    gated = Gated(images)
    service = Service(gated.model, limits=replace(SMALL, seconds=0.2), sizes=(8,))
    gated.open = False

    async def scenario(client: httpx.AsyncClient) -> None:
        answer = await client.post("/embed", content=encoded(4, 4), headers=PNG)
        assert refused(answer)[:4] == (504, "not_answered", "the request was not answered within 0.2 seconds", 0.2)

        async def stalls() -> AsyncIterator[bytes]:
            yield b"a"
            await asyncio.sleep(5)
            yield b"b"

        answer = await client.post("/embed", content=stalls(), headers=PNG)
        assert refused(answer)[:4] == (408, "not_arrived", "the request did not arrive within 0.2 seconds", 0.2)
        gated.open = True
        gated.go.release(9)
        assert (await client.post("/embed", content=encoded(4, 4), headers=PNG)).status_code == 200

    asked(service, scenario)
    assert service.batcher.held == 0


@dataclass
class Searches:
    """Searches of an index; each waits for ``go``."""

    index: Index
    begun: list[int] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Searches:
    found = Searches(Index(np.eye(6, dtype=np.float32), {"index": np.arange(6)}))
    search = Index.nearest

    def nearest(index: Index, embedding: np.ndarray, k: int) -> Any:
        found.begun.append(k)
        assert found.go.wait(10)
        return search(index, embedding, k)

    monkeypatch.setattr(Index, "nearest", nearest)
    return found


def test_searches_that_wait_hold_their_places_and_keep_no_other_request_from_its_answer(images: Model, slow: Searches) -> None:
    """As many searches as there may be threads wait; another request is answered. Once all places are held the next is turned away."""
    service = Service(images, limits=replace(SMALL, queue=10), index=slow.index, sizes=(8,))

    async def scenario(client: httpx.AsyncClient) -> None:
        def ask(path: str) -> Any:
            return client.post(path, content=encoded(4, 4), headers=PNG)

        async with asyncio.timeout(8):
            early = [asyncio.create_task(ask("/similar?k=1")) for _ in range(8)]
            await until(lambda: len(slow.begun) == min(8, os.cpu_count() or 1) and service.batcher.held == 8)
            assert (await ask("/embed")).status_code == 200
            early += [asyncio.create_task(ask("/similar?k=1")) for _ in range(2)]
            await until(lambda: service.batcher.held == 10)
            for path in ("/similar", "/embed"):
                wanted = "too many requests at once (10 of 10 rows are held, 1 more were wanted); come again in a second"
                assert refused(await ask(path))[:3] == (503, "overloaded", wanted)
            slow.go.set()
            assert [(await one).status_code for one in early] == [200] * 10

    asked(service, scenario)
    assert service.batcher.held == 0


def test_a_search_that_takes_too_long_is_given_up(images: Model, slow: Searches) -> None:
    service = Service(images, limits=replace(SMALL, seconds=0.2), index=slow.index, sizes=(8,))

    async def scenario(client: httpx.AsyncClient) -> None:
        waits = asyncio.create_task(client.post("/similar", content=encoded(4, 4), headers=PNG))
        done, _ = await asyncio.wait([waits], timeout=5)
        slow.go.set()
        assert done
        assert refused(await waits)[:4] == (504, "not_answered", "the request was not answered within 0.2 seconds", 0.2)

    asked(service, scenario)
    assert service.batcher.held == 0


def test_a_failure_of_the_encoder_is_told_without_its_words(images: Model) -> None:
    class Broken(Gated):
        def __call__(self, batch: np.ndarray, *, pad_to: int | None = None) -> np.ndarray:
            if not self.open:
                raise RuntimeError("the device is on fire at /secret/place")
            return super().__call__(batch, pad_to=pad_to)

    broken = Broken(images)
    service = Service(broken.model, limits=SMALL, sizes=(8,))
    broken.open = False
    got = refused(post(service, "/embed", content=encoded(4, 4), headers=PNG))
    assert got[:3] == (500, "internal", "the service failed; its log says why")
    broken.open = True
    assert post(service, "/embed", content=encoded(4, 4), headers=PNG).status_code == 200


def test_an_encoder_that_diverged_is_not_served(images: Model) -> None:
    diverged = Gated(images)
    diverged._encoder = lambda batch, pad_to: np.full((len(batch), 6), np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN or infinite; was the checkpoint written by a run that diverged"):
        Service(diverged.model, limits=SMALL, sizes=(8,))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(bytes=0), "bytes = 0: must be above 0"),
        (Limits(seconds=-1), "seconds = -1: must be above 0"),
        (Limits(queue=31), "queue = 31: must be at least count = 32, or a full request never finds room"),
    ],
)
def test_limits_out_of_range(limits: Limits, message: str) -> None:
    assert limits.errors() == [message]
    assert Limits().errors() == []
