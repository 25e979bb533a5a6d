"""uvicorn's server, which says when it is ready."""

from __future__ import annotations

import socket
from collections.abc import Sequence

import uvicorn


class Server(uvicorn.Server):
    """Prints the lines once the socket takes connections."""

    def __init__(self, config: uvicorn.Config, lines: Sequence[str]) -> None:
        super().__init__(config)
        self._lines = lines

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(*self._lines, sep="\n", flush=True)
