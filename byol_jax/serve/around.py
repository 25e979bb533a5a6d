"""Around every request: errors in one form, counters."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from byol_jax.serve.batcher import Full
from byol_jax.serve.limits import Refused
from byol_jax.serve.metrics import Metrics

HEADERS = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}


class Counted:
    """Counts requests and how long they took, by path; what has no endpoint counts as "other"."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"] if scope["path"] in self.paths else "other"
        start, status = time.perf_counter(), 499  # the caller left

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            self.metrics.requests.labels(path, str(status)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)


def install(app: FastAPI, metrics: Metrics) -> None:
    """Every error of the application becomes ``{"error": {"code", "message"}}``."""

    def answer(refused: Refused) -> JSONResponse:
        metrics.refused.labels(refused.code).inc()
        return JSONResponse(refused.to_json(), refused.status, HEADERS.get(refused.status))

    async def refused(request: Request, error: Any) -> JSONResponse:
        return answer(error)

    async def full(request: Request, error: Any) -> JSONResponse:
        return answer(Refused(503, "overloaded", f"too many requests at once ({error}); come again in a second"))

    async def invalid(request: Request, error: Any) -> JSONResponse:
        first = error.errors()[0]
        return answer(Refused(422, "bad_query", f"{first['loc'][-1]} = {first.get('input')!r}: {first['msg']}"))

    async def of_http(request: Request, error: Any) -> JSONResponse:
        known = ", ".join(sorted(paths))
        hint = {404: f"there is no {request.url.path}; there are {known}", 405: f"{request.url.path} does not take {request.method}"}
        code = {404: "not_found", 405: "wrong_method"}.get(error.status_code, "bad_request")
        return answer(Refused(error.status_code, code, hint.get(error.status_code, str(error.detail))))

    async def left(request: Request, error: Any) -> JSONResponse:
        return answer(Refused(400, "left", "the body ended before it was whole"))

    async def broken(request: Request, error: Exception) -> JSONResponse:
        return answer(Refused(500, "internal", "the service failed; its log says why"))  # uvicorn's

    handlers = {Refused: refused, Full: full, RequestValidationError: invalid, HTTPException: of_http, ClientDisconnect: left}
    for kind, handler in [*handlers.items(), (Exception, broken)]:
        app.add_exception_handler(kind, handler)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    app.add_middleware(Counted, metrics=metrics, paths=paths)
