"""Checkpoints of a run: the last N and the best, written in the background, each one whole or not there at all.

Orbax writes a checkpoint under a temporary name and renames it when its last byte is on the disk; old ones are renamed into
``trash`` before they are deleted. So whatever bears a step's number is complete, whenever the process was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as keeping

from byol_jax import __version__
from byol_jax.workdir import folder, is_remote, read_json, unused

_LOG = logging.getLogger("byol_jax.checkpoint")
_TRASH = "trash"
_JSON = _NOTE, _METRICS, _ = "note/metadata", "metrics/metrics", "state/_METADATA"  # in the folder of a checkpoint
Metrics = Mapping[str, float]


class _RaisedAnyway(logging.Filter):
    """Orbax logs each failure with its traceback, in every thread it passes through; we raise it once, in one sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR or "orbax" not in record.pathname


logging.getLogger("absl").addFilter(_RaisedAnyway())


class _Manager(ocp.CheckpointManager):
    """Orbax reads the metrics of all checkpoints when it opens: one damaged file would bar the way to every one of them."""

    def metrics(self, step: int) -> Any:
        try:
            return super().metrics(step)
        except ValueError as error:
            _LOG.warning("checkpoint at step %d: its metrics cannot be read (%s); it does not count as the best", step, error)
            return None


class CheckpointError(ValueError):
    """A checkpoint could not be written, read, or does not fit the state it is to be restored into."""


class SaveError(CheckpointError):
    """A checkpoint could not be written: disk full, connection lost ..."""

    exit_code = 1  # of the command line: not a mistake in the command


class Checkpoints:
    """The checkpoints in one folder. All processes of a run call every method together.

    Args:
      directory: where they are; made if it is not there (unless ``read_only``).
      every_steps: ``save`` skips other steps unless it is forced.
      keep: how many of the latest stay.
      keep_best: also keep the one with the highest ``best_metric`` among the metrics given to ``save``.
      note: plain data (JSON) that travels with every checkpoint, beside the package's version and the step.
      read_only: for evaluation, also beside a run in progress: nothing is ever written or cleaned up.

    Raises:
      CheckpointError: the folder cannot be made or written; with ``read_only``, it is not there.
    """

    def __init__(
        self,
        directory: Any,
        *,
        every_steps: int = 1000,
        keep: int = 3,
        keep_best: bool = True,
        best_metric: str = "knn_top1",
        note: Mapping[str, Any] | None = None,
        read_only: bool = False,
    ) -> None:
        if every_steps < 1 or keep < 1:
            raise ValueError(f"every_steps = {every_steps}, keep = {keep}: both must be 1 or more")
        place = epath.Path(folder(directory))
        self.directory = place if is_remote(place) else place.absolute()  # absolute() would make a local path of a URL
        self._every_steps, self._metric, self._note, self._read_only = every_steps, best_metric, dict(note or {}), read_only
        self._saving: int | None = None
        policies = [keeping.LatestN(keep), keeping.BestN(get_metric_fn=self._score, n=1)][: 1 + keep_best]
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"checkpoints: no such folder: {self.directory}")
        try:
            self._manager = _Manager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    create=not read_only,
                    cleanup_tmp_directories=not read_only,
                    best_fn=self._score,
                    preservation_policy=keeping.AnyPreservationPolicy(policies),
                    todelete_subdir=_TRASH,
                ),
            )
        except OSError as error:
            raise CheckpointError(f"checkpoints: cannot use the folder {self.directory}: {_reason(error)}") from error
        if not read_only:
            self._empty_trash()

    def due(self, step: int) -> bool:
        """Whether ``save`` would write this step unforced. The start of a run is not due: it can be made again from the seed."""
        return step > 0 and step % self._every_steps == 0

    def save(self, step: int, state: Any, metrics: Metrics | None = None, force: bool = False) -> bool:
        """Starts to write the state after ``step`` updates; returns when its buffers may be donated, long before it is written.

        Does nothing, and says False, where the step is not due (and not ``force``d) or is already there.

        Raises:
          SaveError: this save could not start, or the one before it failed (disk full ...); earlier ones are intact.
        """
        if self._read_only:
            raise CheckpointError(f"checkpoints: {self.directory} was opened read_only; open it without to save")
        if not (force or self.due(step)) or step in self.steps():
            return False
        self.wait()
        self._saving = step
        note = {**self._note, "step": step, "byol_jax": __version__}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_kept(state)), note=ocp.args.JsonSave(note))
        numbers = {name: float(value) for name, value in (metrics or {}).items() if math.isfinite(value)}
        with self._writing():
            self._manager.save(step, args=args, metrics=numbers, force=True)
        return True

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The state at ``step``, or the latest one, with the shapes, dtypes and shardings of ``like``.

        ``like`` is a state or a tree of ``jax.ShapeDtypeStruct``; its mesh need not be the one that saved. A damaged latest
        checkpoint (the machine lost power while the disk was writing) is set aside with a warning, and the one before it is taken.

        Raises:
          CheckpointError: there is none, it does not fit ``like`` (the first differences are named), or a damaged one cannot be set
            aside: ``step`` asks for it, there is no other, several processes read it, or ``read_only``.
        """
        at = self._known(step)
        abstract = _kept(jax.tree.map(ocp.utils.to_shape_dtype_struct, like))
        try:
            self._check_fit(abstract, at)
            found = self._manager.restore(at, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
            return found if isinstance(found, type(like)) else dataclasses.replace(like, **found)
        except CheckpointError:
            raise
        except Exception as error:
            self._set_aside(at, step, error)
            return self.restore(like)

    def restore_raw(self, keys: Sequence[str], step: int | None = None) -> dict[str, Any]:
        """Some top-level fields of the saved state as nested dicts of numpy arrays, without knowing its optimizer."""
        at = self._known(step)
        tree = self._saved_tree(at)
        missing = [key for key in keys if key not in tree]
        if missing:
            raise CheckpointError(f"checkpoint at step {at}: has no {', '.join(missing)}; it has {', '.join(sorted(tree))}")
        item = {key: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree[key]) for key in keys}
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
        args = ocp.args.PyTreeRestore(item=item, restore_args=how, partial_restore=True)
        options = ocp.CheckpointManagerOptions(create=False, lightweight_initialize=True)
        with ocp.CheckpointManager(self.directory, options=options) as manager:
            return dict(manager.restore(at, args=ocp.args.Composite(state=args))["state"])

    def fields(self, step: int | None = None) -> list[str]:
        """The names of the saved state's top-level fields."""
        return sorted(self._saved_tree(self._known(step)))

    def note(self, step: int | None = None) -> dict[str, Any]:
        """The plain data saved with a checkpoint: the run's note, ``step``, and ``byol_jax``, the version that wrote it."""
        return read_json(self.directory / str(self._known(step)) / _NOTE)

    def metrics(self, step: int | None = None) -> dict[str, float]:
        """The metrics given when it was saved."""
        return read_json(self.directory / str(self._known(step)) / _METRICS)

    def steps(self) -> list[int]:
        """All complete steps, and the one now being written."""
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """The step with the highest best metric; None where no checkpoint has it."""
        best = self._manager.best_step()
        return best if best is not None and self._metric in self.metrics(best) else None

    def wait(self) -> None:
        """Until the save under way is on the disk; raises SaveError if it failed."""
        with self._writing():
            self._manager.wait_until_finished()
        if self._saving is not None:
            self._saving = None
            self._empty_trash()

    def close(self) -> None:
        """Waits, then frees what the background needs."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # a failed save was raised by wait, once
                self._manager.close()

    def _score(self, metrics: Metrics | None) -> float:
        return float((metrics or {}).get(self._metric, -math.inf))

    def _known(self, step: int | None) -> int:
        self.wait()
        at = self.latest_step() if step is None else step
        if at is None or at not in self.steps():
            raise CheckpointError(f"checkpoints: no step {'' if at is None else at} in {self.directory}; there: {self.steps() or 'none'}")
        try:
            for file in _JSON:
                read_json(self.directory / str(at) / file)
        except (OSError, ValueError) as error:
            self._set_aside(at, step, error)
            return self._known(None)
        return at

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            step, self._saving = self._saving, None
            whole = [s for s in self.steps() if s != step]
            left = f"step {max(whole)} is intact, go on from there" if whole else "there is no earlier one"
            raise SaveError(f"checkpoint at step {step}: cannot be written to {self.directory}: {_reason(error)}; {left}") from error

    def _empty_trash(self) -> None:
        trash = self.directory / _TRASH
        if jax.process_index() == 0 and trash.exists():
            trash.rmtree(missing_ok=True)

    def _set_aside(self, at: int, asked: int | None, error: Exception) -> None:
        """Makes way for the checkpoint before a damaged one, or raises CheckpointError as ``restore`` says."""
        others = [step for step in self.steps() if step != at]
        if asked is not None or self._read_only or not others or jax.process_count() > 1:
            instead = f"; other steps: {others}" if others else ""
            raise CheckpointError(f"checkpoint {self.directory / str(at)}: cannot be read: {_reason(error)}{instead}") from error
        damaged = unused(self.directory / f"damaged-{at}")
        _LOG.warning("checkpoint at step %d cannot be read (%s): moved to %s, taking the one before it", at, _reason(error), damaged)
        (self.directory / str(at)).replace(damaged)
        self._manager.reload()

    def _saved_tree(self, step: int) -> Any:
        found = ocp.PyTreeCheckpointHandler().metadata(self.directory / str(step) / "state")
        return found.tree if hasattr(found, "tree") else found

    def _check_fit(self, abstract: Any, step: int) -> None:
        saved, wanted = _leaves(self._saved_tree(step)), _leaves(abstract)
        both = [name for name in wanted if name in saved]
        wrong = [f"{name}: saved {saved[name]}, this run {wanted[name]}" for name in both if saved[name] != wanted[name]]
        wrong += [f"{name}: not in the checkpoint" for name in wanted if name not in saved]
        wrong += [f"{name}: only in the checkpoint" for name in saved if name not in wanted]
        if wrong:
            more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
            raise CheckpointError(
                f"checkpoint at step {step} in {self.directory}: does not fit this run: {'; '.join(wrong[:3])}{more}. "
                "Resume with the network and optimizer it was started with, or choose another workdir"
            )


def _kept(state: Any) -> Any:
    """What is written of a state: a dataclass as a dict, without fields at their default: one added later leaves old files valid."""
    if not dataclasses.is_dataclass(state):
        return state
    values = {field.name: (getattr(state, field.name), field.default) for field in dataclasses.fields(state)}
    return {name: value for name, (value, default) in values.items() if default is dataclasses.MISSING or value != default}


def _leaves(tree: Any) -> dict[str, str]:
    """'online/params/kernel' -> 'float32[3, 3]': the same for a state and for what orbax says of a saved one."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for path, leaf in pairs}


def _reason(error: BaseException) -> str:
    """The first line of what went wrong; the two usual causes in plain words."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    number = getattr(error, "errno", None)
    if number == errno.ENOSPC or "No space left" in str(error):
        return "the disk is full (no space left on device); free some space"
    if number in (errno.EACCES, errno.EROFS, errno.EPERM) or "Permission denied" in str(error):
        return f"the folder is not writable ({text})"
    return text
