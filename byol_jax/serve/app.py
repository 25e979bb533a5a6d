"""The endpoints: from a request to rows, through the batcher, to an answer."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic_core import to_json

import byol_jax
from byol_jax.evaluate.probe import Probe
from byol_jax.serve import body
from byol_jax.serve.answers import ERRORS, Classes, Embeddings, Health, Neighbours
from byol_jax.serve.around import install
from byol_jax.serve.batcher import Batcher, Room
from byol_jax.serve.index import Index
from byol_jax.serve.limits import Limits, Refused
from byol_jax.serve.metrics import Metrics
from byol_jax.serve.model import Model

FEW = 4096  # numbers that are written in less time than another thread is asked to
PAGE = Path(__file__).with_name("page.html")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob:; connect-src 'self'; form-action 'none'"


class Service:
    """What stands behind the endpoints. Making it compiles every shape that it will ever run.

    Args:
      model: of images or of texts.
      limits: of a request.
      index: for ``/similar``. probe: for ``/classify``. api_key: what requests must bring; None: nothing.
      step: of the checkpoint, to be told.
      sizes: of a batch. window: seconds, see ``Batcher``.

    Raises:
      ValueError: an index or a probe of another number of dimensions, and what ``Model.warm_up`` raises.
    """

    def __init__(
        self,
        model: Model,
        *,
        limits: Limits,
        index: Index | None = None,
        probe: Probe | None = None,
        api_key: str | None = None,
        step: int | None = None,
        sizes: Sequence[int] = (1, 8, 32),
        window: float = 0.002,
    ) -> None:
        self.model, self.limits, self.index, self.probe, self.step = model, limits, index, probe, step
        plans, self.dimensions = model.warm_up(sizes)
        for flag, width in (("--index", index and index.unit.shape[1]), ("--probe", probe and len(probe.weights))):
            if width not in (None, self.dimensions):
                raise ValueError(f"{flag}: is of embeddings of {width} dimensions, the run's have {self.dimensions}; take one of this run")
        self.batcher = Batcher(model, plans, capacity=limits.queue, window=window, watch=lambda *facts: self.metrics.batch(*facts))
        self.metrics = Metrics(lambda: self.batcher.waiting, lambda: self.batcher.held)
        self._key = None if api_key is None else _digest(api_key.encode())

    @contextlib.asynccontextmanager
    async def running(self, app: object = None) -> AsyncIterator[None]:
        """Requests are answered within."""
        stop = self.metrics.watch_compilations()
        threads = min(8, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, "prepare")
        self._search = ThreadPoolExecutor(threads, "search")  # of its own: a large index keeps no other request from being read
        try:
            async with self.batcher.running():
                yield
        finally:
            stop()
            for pool in (self._pool, self._search):
                pool.shutdown(cancel_futures=True)

    async def embed(self, request: Request) -> Response:
        """The embedding of each image or text."""
        async with self._embedded(request) as found:
            pool = self._pool if found.size > FEW else None
            return await self._answer(lambda: {"embeddings": found.tolist(), "dimensions": self.dimensions}, pool)

    async def classify(self, request: Request, top: int = Query(5, ge=1, description="classes to tell, the most probable")) -> Response:
        """The most probable classes of each image or text."""
        probe = self.probe
        if probe is None:
            self._check_key(request)
            text = "no classifier is loaded: start the service with --probe FILE.npz (`byol-jax evaluate linear --save FILE.npz`)"
            raise Refused(404, "no_probe", text)
        async with self._embedded(request) as found:
            return await self._answer(lambda: {"results": probe.best(found, top)}, self._pool)

    async def similar(self, request: Request, k: int = Query(10, ge=1, description="neighbours to tell")) -> Response:
        """The nearest neighbours of each image or text in the index, by cosine."""
        index = self.index
        if index is None:
            self._check_key(request)
            text = "no index is loaded: start the service with --index FILE.npz (`byol-jax embed --output FILE.npz`)"
            raise Refused(404, "no_index", text)
        if k > self.limits.neighbours:
            facts = {"limit": self.limits.neighbours, "value": k}
            raise Refused(422, "too_many_neighbours", f"k = {k}: at most {self.limits.neighbours} neighbours are told", **facts)
        async with self._embedded(request) as found:
            return await self._answer(lambda: {"results": index.nearest(found, k)}, self._search)

    async def health(self) -> Response:
        """Whether the service is there, and what it serves."""
        limits = vars(self.limits)
        told = {"kind": self.model.kind, "dimensions": self.dimensions, "step": self.step, "key": self._key is not None}
        return _json({"status": "ok", **told, "classify": self.probe is not None, "similar": self.index is not None, "limits": limits})

    async def counters(self, request: Request) -> Response:
        """Counters and times for Prometheus."""
        self._check_key(request)
        return Response(self.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def page(self) -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": POLICY})

    def _check_key(self, request: Request) -> None:
        given = request.headers.get("authorization", "")
        if self._key is not None and not hmac.compare_digest(_digest(given.removeprefix("Bearer ").encode("latin-1")), self._key):
            what = "a wrong API key" if given else "no API key"
            raise Refused(401, "unauthorized", f"{what}: send the header 'Authorization: Bearer KEY'")

    @contextlib.asynccontextmanager
    async def _embedded(self, request: Request) -> AsyncIterator[np.ndarray]:
        """float32 [N, D] of the request's images or texts. The answer is made within: it holds places and ends in time."""
        self._check_key(request)
        arrived = False
        with self.batcher.room() as room:
            try:
                async with asyncio.timeout(self.limits.seconds):
                    examples = await body.examples(request, self.model.kind, self.limits)
                    arrived = True
                    yield await self._rows(room, examples)
            except TimeoutError:
                what = "was not answered" if arrived else "did not arrive"
                facts = {"limit": self.limits.seconds}
                status, code = (504, "not_answered") if arrived else (408, "not_arrived")
                raise Refused(status, code, f"the request {what} within {self.limits.seconds:g} seconds", **facts) from None

    async def _rows(self, room: Room, examples: list[Any]) -> np.ndarray:
        room.take(len(examples))
        room.announce()
        until = time.monotonic() + self.limits.seconds

        def prepared() -> list[np.ndarray]:
            rows = []
            for i, example in enumerate(examples):
                if time.monotonic() > until:
                    raise TimeoutError  # nobody waits for it any more
                rows.append(self.model.prepare(example, f"{self.model.kind}[{i}]"))
            return rows

        return await room.answers(await asyncio.get_running_loop().run_in_executor(self._pool, prepared))

    async def _answer(self, make: Callable[[], Any], pool: ThreadPoolExecutor | None) -> Response:
        """Many numbers take as long to write as to compute, and an index as long to search: not in the event loop, which None takes."""
        return _json(make()) if pool is None else await asyncio.get_running_loop().run_in_executor(pool, lambda: _json(make()))


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _json(content: Any) -> Response:
    return Response(to_json(content), media_type="application/json")


def create_app(service: Service) -> FastAPI:
    """The endpoints of a service; it works while the application's lifespan lasts."""
    about = f"An encoder of {service.model.kind}, trained by BYOL: {service.dimensions} numbers an example."
    app = FastAPI(
        title="byol-jax serve",
        version=byol_jax.__version__,
        description=about,
        lifespan=service.running,
        docs_url=None,  # its page, and redoc's, would load scripts from elsewhere
        redoc_url=None,
    )
    takes = body.documented(service.model.kind)
    for path, answer, model in (
        ("/embed", service.embed, Embeddings),
        ("/classify", service.classify, Classes),
        ("/similar", service.similar, Neighbours),
    ):
        responses = {200: {"model": model}, **ERRORS}
        app.add_api_route(path, answer, methods=["POST"], responses=responses, openapi_extra=takes, response_class=Response)
    app.add_api_route("/healthz", service.health, responses={200: {"model": Health}}, response_class=Response)
    app.add_api_route("/metrics", service.counters, response_class=Response)
    app.add_api_route("/", service.page, include_in_schema=False)
    install(app, service.metrics)
    return app
