"""What the service counts, for Prometheus; each service has a registry of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

COMPILATION = "/jax/core/compile/backend_compile_duration"
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Counters of one service; ``page`` is what ``/metrics`` answers."""

    def __init__(self, waiting: Callable[[], float], held: Callable[[], float]) -> None:
        self.registry = to = CollectorRegistry()
        ProcessCollector(registry=to)
        self.requests = Counter("byol_requests", "Requests answered", ("path", "status"), registry=to)
        self.seconds = Histogram("byol_request_seconds", "Of a request, its body included", ("path",), buckets=SECONDS, registry=to)
        self.refused = Counter("byol_refused", "Requests answered by an error", ("code",), registry=to)
        self.rows = Counter("byol_rows", "Images or texts embedded", registry=to)
        self.batches = Histogram("byol_batch_rows", "Images or texts in a call of the encoder", buckets=ROWS, registry=to)
        self.padding = Counter("byol_padding_rows", "Rows computed for nothing, so that batches have few sizes", registry=to)
        self.encoder = Histogram("byol_encoder_seconds", "Of a call of the encoder", buckets=SECONDS, registry=to)
        self.compilations = Counter("byol_compilations", "Programs compiled since the service was ready; stays 0", registry=to)
        Gauge("byol_waiting_rows", "Images or texts in the queue", registry=to).set_function(waiting)
        Gauge("byol_held_rows", "Images or texts here, in any state", registry=to).set_function(held)

    def batch(self, rows: int, size: int, seconds: float) -> None:
        """Notes a call of the encoder."""
        self.rows.inc(rows)
        self.batches.observe(rows)
        self.padding.inc(size - rows)
        self.encoder.observe(seconds)

    def watch_compilations(self) -> Callable[[], None]:
        """From now on compilations of this process count, until what is returned is called."""

        def heard(event: str, duration_secs: float, **facts: str | int) -> None:
            if event == COMPILATION:
                self.compilations.inc()

        jax.monitoring.register_event_duration_secs_listener(heard)
        return functools.partial(jax.monitoring.unregister_event_duration_listener, heard)

    def page(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self.registry)
