"""``byol-jax serve``: loads a run, compiles, listens, and drains when it is told to end."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byol_jax import evaluate
from byol_jax.build import load_encoder, load_sentence_encoder, runs
from byol_jax.config import ConfigError, Spec
from byol_jax.serve.index import Index
from byol_jax.serve.limits import Limits
from byol_jax.serve.model import Model, image_model, text_model

LOCAL = ("127.0.0.1", "::1", "localhost")


def serve(
    workdir: str | os.PathLike[str],
    spec: Spec,
    *,
    limits: Limits,
    step: int | None = None,
    index: str | None = None,
    whiten: bool = False,
    probe: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key_file: str | None = None,
    sizes: Sequence[int] = (1, 8, 32),
    window: float = 0.002,
) -> None:
    """Serves the run until SIGTERM or Ctrl-C: then no connection is taken any more, and requests that are here are answered first.

    Args:
      index: a file of ``byol-jax embed``; whiten: before cosines are taken. probe: one of ``byol-jax evaluate linear --save``.
      api_key_file: holds the key.
      port: 0 takes a free one.
      sizes, window: see ``Service``.

    Raises:
      ConfigError, ValueError: limits out of range, files that do not fit the run, an address that is taken, no extra ``serve``.
    """
    try:
        import uvicorn

        from byol_jax.serve.app import Service, create_app
        from byol_jax.serve.listening import Server
    except ImportError as error:
        raise ConfigError([f"serve: needs {error.name}, which is not installed: pip install 'byol-jax[serve]'"]) from None
    if whiten and index is None:
        raise ConfigError(["--whiten: whitens an index; give --index FILE.npz too"])
    if faults := limits.errors():
        raise ConfigError([f"--max-{fault}".replace("--max-queue", "--queue") for fault in faults])
    key = None if api_key_file is None else _key(Path(api_key_file))
    files: dict[str, Any] = {
        "index": None if index is None else Index.load(index, whiten=whiten),
        "probe": None if probe is None else evaluate.load_probe(probe),
    }
    with _bound(host, port) as listener:
        note = runs.checkpoint_note(workdir, step)["step"]
        service = Service(model(workdir, spec, step, limits), limits=limits, api_key=key, step=note, sizes=sizes, window=window, **files)
        config = uvicorn.Config(create_app(service), log_level="warning", access_log=False, server_header=False)
        config.timeout_graceful_shutdown = int(limits.seconds) + 1
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each form that cannot be read; so do our counters
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # uvicorn raises a signal once more after it has drained
        address, taken, *_ = listener.getsockname()
        Server(config, told(service, address, taken, key is not None)).run(sockets=[listener])


def model(workdir: str | os.PathLike[str], spec: Spec, step: int | None, limits: Limits) -> Model:
    """The run's encoder, of images or of texts."""
    if spec.text.preset is None:
        return image_model(load_encoder(workdir, step=step, spec=spec), limits)
    return text_model(load_sentence_encoder(workdir, step=step, spec=spec), limits)


def told(service: Any, host: str, port: int, key: bool) -> list[str]:
    """What is said when the service is ready."""
    place = f"[{host}]" if ":" in host else host
    missing = {"/classify": service.probe is None and "--probe", "/similar": service.index is None and "--index"}
    ends = ["/embed", *(path for path, flag in missing.items() if not flag)]
    without = "".join(f"; {path} wants {flag}" for path, flag in missing.items() if flag)
    lines = [f"serving {service.model.kind} at http://{place}:{port} ({', '.join(ends)}{without}); Ctrl-C ends it"]
    if host not in LOCAL and not key:
        lines.append(f"  whoever reaches {host} may use it: give --api-key-file, or --host 127.0.0.1")
    return lines


def _key(path: Path) -> str:
    if not path.is_file():
        raise ConfigError([f"--api-key-file {path}: there is no such file; write the key into it"])
    key = path.read_text(encoding="utf-8").strip()
    if not key:
        raise ConfigError([f"--api-key-file {path}: the file is empty; write the key into it"])
    return key


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, and does not listen yet: callers are turned away until the service is ready."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError([f"--host {host} --port {port}: cannot listen there ({error}); --port 0 takes a free port"]) from None
    return listener
