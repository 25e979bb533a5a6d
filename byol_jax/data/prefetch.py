"""An iterator that works ahead in a background thread and can be closed."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np

Batch = dict[str, np.ndarray]
_END = object()
_LONGEST = 10.0  # seconds to wait for a thread: whatever it reads from may hang
_WORKING: weakref.WeakKeyDictionary[threading.Thread, threading.Event] = weakref.WeakKeyDictionary()  # those of dropped iterators too


@atexit.register
def _end_all() -> None:
    """tf.data's threads must not call into an interpreter that is going away; they end before the thread that asked them for batches."""
    working = list(_WORKING.items())
    for _, stop in working:
        stop.set()
    latest = time.monotonic() + _LONGEST
    for thread, _ in working:
        thread.join(timeout=max(0.0, latest - time.monotonic()))


class Batches:
    """An iterator over batches. Close it (or leave its ``with`` block, or drop it) to stop the work behind it.

    Attributes:
      bad_files: files that could not be decoded so far, in the order found.
    """

    def __init__(
        self,
        make: Callable[[], Iterator[Batch]],
        *,
        ahead: int = 2,
        bad_files: list[str] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """``make`` is called in the background thread, which keeps ``ahead`` batches ready; ``stop`` is set once nobody wants more."""
        self.bad_files = [] if bad_files is None else bad_files
        self._queue: queue.Queue[Any] = queue.Queue(ahead)
        self._stop = stop or threading.Event()
        # The thread holds the queue and the event, not self: a dropped iterator can be collected, and stops the thread.
        self._thread = threading.Thread(target=_work, args=(make, self._queue, self._stop), name="byol_jax.data", daemon=True)
        self._thread.start()
        _WORKING[self._thread] = self._stop

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        item = self._next()
        if item is _END:
            self._stop.set()
            raise StopIteration
        if isinstance(item, BaseException):
            self._stop.set()
            raise item
        return item

    def _next(self) -> Any:
        while not self._stop.is_set():  # looked at now and then: another thread may close what this one waits for
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=0.5)
        return _END

    def close(self) -> None:
        """Stops the background work; the iterator ends. Safe to call twice."""
        self._stop.set()
        while True:  # let a thread that waits to put go on
            try:
                self._queue.get_nowait()
            except queue.Empty:
                break
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=_LONGEST)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self._stop.set()


def _work(make: Callable[[], Iterator[Batch]], out: queue.Queue[Any], stop: threading.Event) -> None:
    """Fills the queue until told to stop; hands over what was raised."""
    iterator: Any = None
    try:
        iterator = make()
        for batch in iterator:
            if not _put(batch, out, stop):
                return
        _put(_END, out, stop)
    except BaseException as error:
        _put(error, out, stop)
    finally:
        if hasattr(iterator, "close"):
            iterator.close()


def _put(item: Any, out: queue.Queue[Any], stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            out.put(item, timeout=0.1)
        except queue.Full:
            continue
        return True
    return False
