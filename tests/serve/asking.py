"""A service asked in this process, without a socket; images and an encoder as small as can be."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from flax import linen as nn
from PIL import Image

from byol_jax.serve.app import Service, create_app


class Flat(nn.Module):
    """Six numbers of all pixels."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        return nn.Dense(6)(x.reshape(len(x), -1))


def encoded(width: int = 20, height: int = 14, *, seed: int = 0, kind: str = "PNG", mode: str = "RGB") -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(out, kind)
    return out.getvalue()


Scenario = Callable[[httpx.AsyncClient], Awaitable[Any]]


def asked(service: Service, scenario: Scenario) -> Any:
    """What the scenario returns, run beside the service."""

    async def whole() -> Any:
        transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
        async with service.running(), httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await scenario(client)

    return asyncio.run(whole())


def post(service: Service, path: str, **request: Any) -> httpx.Response:
    """The answer to one request."""
    return asked(service, lambda client: client.post(path, **request))


def metric(service: Service, name: str, **labels: str) -> float:
    return service.metrics.registry.get_sample_value(name, labels) or 0.0


def files(folder: Path, contents: dict[str, bytes]) -> Path:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder
