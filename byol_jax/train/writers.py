"""Where the numbers of a run go: the terminal, metrics.jsonl, TensorBoard, Weights & Biases."""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import math
import os
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from byol_jax import parallel
from byol_jax.train.hooks import Hook, Metrics
from byol_jax.workdir import is_remote

_LOG = logging.getLogger("byol_jax.train")
NAMES = ("terminal", "jsonl", "tensorboard", "wandb")


def make_writers(
    names: Sequence[str | Hook], *, workdir: Any, start_step: int, steps: int, run: Mapping[str, Any] | None = None
) -> list[Hook]:
    """Writers by name, on process 0 alone, and your own hooks, on every process. Without a workdir only the terminal is written to.

    Raises:
      ValueError: an unknown name, or a writer whose package is not installed.
    """
    unknown = [name for name in names if not isinstance(name, Hook) and name not in NAMES]
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), NAMES, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"writers: {unknown[0]!r} is unknown; {hint}choose from {', '.join(NAMES)}, or pass a Hook")
    made: list[Hook] = []
    for name in names:
        if isinstance(name, Hook):
            made.append(name)
        elif not parallel.is_main():
            continue
        elif name == "terminal":
            made.append(Terminal(start_step=start_step, steps=steps))
        elif workdir is not None and name == "jsonl":
            made.append((RemoteJsonl if is_remote(workdir) else Jsonl)(workdir / "metrics.jsonl", start_step=start_step))
        elif workdir is not None and name == "tensorboard":
            made.append(TensorBoard(workdir / "tensorboard", start_step=start_step))
        elif workdir is not None:
            made.append(WandB(workdir, run=run))
    return made


class Jsonl(Hook):
    """One JSON object a line: {"step": n, name: number, ...}. A number that is not finite is written as null.

    On resume the lines at or past ``start_step`` are dropped, since they will be written again; so is half a line, left by a kill.
    """

    def __init__(self, path: Any, *, start_step: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = _lines_before(start_step, path)
            fresh = path.with_suffix(".tmp")
            fresh.write_bytes(b"".join(kept))
            fresh.replace(path)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def log(self, step: int, metrics: Metrics) -> None:
        os.write(self._file, _line(step, metrics))

    def close(self) -> None:
        os.close(self._file)


class RemoteJsonl(Hook):
    """The same file in an object store, where nothing can be appended: written anew, whole, at most every ``every`` seconds.

    A kill loses what was logged since. A write that fails is made up for by the next one; the run does not stop for it.
    """

    def __init__(self, path: Any, *, start_step: int, every: float = 60.0) -> None:
        self._path, self._every, self._written = path, every, time.monotonic()
        self._lines = _lines_before(start_step, path) if path.exists() else []

    def log(self, step: int, metrics: Metrics) -> None:
        self._lines.append(_line(step, metrics))
        if time.monotonic() - self._written >= self._every:
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(b"".join(self._lines))
        except Exception as error:  # each store has its own
            _LOG.warning("%s: not written this time: %s", self._path, error)


def _line(step: int, metrics: Metrics) -> bytes:
    numbers = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    return (json.dumps({"step": step, **numbers}) + "\n").encode()


def _lines_before(start_step: int, path: Any) -> list[bytes]:
    return [line for line in path.read_bytes().splitlines(keepends=True) if _step_of(line) < start_step]


def _step_of(line: bytes) -> float:
    try:
        return int(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


class Terminal(Hook):
    """A progress bar on a terminal; elsewhere (a log file, CI) one line for each logged step."""

    def __init__(self, *, start_step: int, steps: int, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._start, self._steps, self._began = start_step, steps, time.perf_counter()
        self._bar = _progress_bar(self._console) if self._console.is_terminal else None
        if self._bar is not None:
            self._task = self._bar.add_task("pretrain", total=steps, completed=start_step, numbers="")
            self._bar.start()

    def tick(self, done: int) -> None:
        if done == self._start + 1:  # the first step compiles; leave it out of the estimate
            self._began = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def log(self, step: int, metrics: Metrics) -> None:
        text = "  ".join(_shown(metrics))
        if "loss" not in metrics:
            self._console.print(f"step {step}/{self._steps}  {text}", soft_wrap=True)
        elif self._bar is not None:
            self._bar.update(self._task, numbers=text)
        else:
            self._console.print(f"step {step}/{self._steps}  {text}  ETA {self._eta(step)}", soft_wrap=True)

    def _eta(self, step: int) -> str:
        done = step - self._start
        if done < 1:
            return "-"
        seconds = round((time.perf_counter() - self._began) / done * (self._steps - step - 1))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def _progress_bar(console: Console) -> Progress:
    columns = (TextColumn("{task.completed}/{task.total}"), BarColumn(bar_width=20), TextColumn("{task.fields[numbers]}"))
    return Progress(*columns, TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), console=console, refresh_per_second=4)


_FORMATS = {
    "loss": "loss {:.3f}",
    "held_out_loss": "held-out loss {:.3f}",
    "tau": "tau {:.4f}",
    "learning_rate": "lr {:.3g}",
    "probe_top1": "probe {:.1%}",
    "examples_per_second": "{:,.0f} examples/s",
    "data_wait": "data {:.0%}",
    "knn_top1": "k-NN {:.2%}",
    "rankme": "RankMe {:.1f}",
    "features_std": "features std {:.2f}",
}


def _shown(metrics: Metrics) -> list[str]:
    return [form.format(metrics[name]) for name, form in _FORMATS.items() if name in metrics]


class TensorBoard(Hook):
    """Scalars for TensorBoard, by tensorboardX. On resume the events at or past ``start_step`` are purged.

    It writes to gs:// and s3:// by the packages google-cloud-storage and boto3, to no other store.
    """

    def __init__(self, folder: Any, *, start_step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise ValueError("writers: 'tensorboard' needs the package tensorboardX: pip install 'byol-jax[tensorboard]'") from error
        if is_remote(folder):
            self._check_store(str(folder))
        self._writer = SummaryWriter(str(folder), purge_step=start_step or None)

    @staticmethod
    def _check_store(url: str) -> None:
        module, package = {"gs": ("google.cloud.storage", "google-cloud-storage"), "s3": ("boto3", "boto3")}.get(url[:2], ("", ""))
        if not module:
            raise ValueError(f"writers: 'tensorboard' cannot write to {url}; only to a local folder, gs:// or s3://")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"writers: 'tensorboard' needs the package {package} to write to {url}") from error

    def log(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandB(Hook):
    """Weights & Biases. The run's id stays in ``workdir/wandb_id``, so a resumed run goes on in the same place.

    Its own files must be local: with a remote workdir they are in a new temporary folder.

    Its own environment variables rule: ``WANDB_MODE=offline`` needs no account, ``WANDB_PROJECT`` names the project.
    """

    def __init__(self, workdir: Any, *, run: Mapping[str, Any] | None = None) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ValueError("writers: 'wandb' needs the package wandb: pip install 'byol-jax[wandb]'") from error
        workdir.mkdir(parents=True, exist_ok=True)
        kept = workdir / "wandb_id"
        if not kept.exists():
            kept.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "byol_jax"),
            name=workdir.name,
            dir=tempfile.mkdtemp(prefix="wandb-") if is_remote(workdir) else str(workdir),
            id=kept.read_text().strip(),
            resume="allow",
            config=dict(run or {}),
        )
        self._run.define_metric("*", step_metric="step")  # a resumed run may write a step again; W&B's own counter cannot go back

    def log(self, step: int, metrics: Metrics) -> None:
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        self._run.finish()
