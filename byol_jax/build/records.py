"""``data convert`` and ``data verify``: the splits of a configuration, written as shards and checked."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from byol_jax import workdir
from byol_jax.build import objects
from byol_jax.config import ConfigError, Spec
from byol_jax.config.check import nearest
from byol_jax.config.rules import is_own
from byol_jax.data import convert as conversion
from byol_jax.data import shards as files
from byol_jax.data.shards import Say


def convert_data(spec: Spec, output: str, *, split: str | None = None, shards: int | None = None) -> Iterator[str]:
    """Writes every split that the configuration names, or ``split`` alone; yields a line about each, and how to train from it.

    Run by one process: a second one in the same folder is refused.

    Raises:
      ConfigError: a split that is not there or is a part of one.
      ValueError, OSError: see ``data.convert.convert``.
    """
    if spec.text.preset is not None:
        raise ConfigError(["text.preset: data convert writes images; the token ids of texts are kept under text.cache by themselves"])
    folder, parts = _local(output), _splits(spec)
    if split is not None and split not in parts:
        raise ConfigError([f"--split {split}: the configuration names {', '.join(parts)}{nearest(split, parts)}"])
    for name in parts if split is None else [split]:
        with _bar(f"convert {name}") as progress:
            part = parts[name]
            source = objects.train_source(part)
            options: dict[str, Any] = {"shards": shards, "max_bad_share": spec.data.max_bad_share, "progress": progress}
            note = conversion.convert(source, folder, name, facts=_facts(part), **options)
        bad = sum(len(facts["bad"]) for facts in note.shards.values())
        empty = f", {bad} of them unreadable and empty" if bad else ""
        already = "" if note.written else "; all of it was there"
        yield f"{name}: {note.facts['examples']:,} examples{empty} in {_shards(len(note.shards))} in {note.folder}{already}"
    yield f"train from it: {' '.join(f'--config.data.{key}={value}' for key, value in _flags(spec, folder).items())}"


def verify_data(folder: str) -> Iterator[str]:
    """Reads all shards again; yields a line about each split. ValueError names every shard that is not as it was written."""
    with _bar("verify") as progress:
        found = files.verify(_local(folder) / conversion.VERSION, progress)
    yield from (f"{name}: {examples:,} examples in {_shards(count)}, as written" for name, (examples, count) in found.items())


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count} shards"


def _local(path: str) -> Path:
    if workdir.is_remote(path):
        raise ConfigError([f"{path}: shards are written to a local folder, or one that is mounted; copy them to the store afterwards"])
    return Path(path).expanduser()


def _splits(spec: Spec) -> dict[str, Spec]:
    """Of each split by its name: the configuration whose training data it is. TFDS's parts and sums are of whole splits."""
    data = spec.data
    named = {f"data.{key}": getattr(data, key) for key in ("split", "labelled_split", "test_split") if getattr(data, key) is not None}
    found: dict[str, Spec] = {}
    for key, text in named.items():
        names = [part.strip().split("[")[0] for part in text.split("+")] if data.source == "tfds" else [text]
        for name in names:
            if not re.fullmatch(r"\w+", name):
                base = re.sub(r"\W.*", "", name) or "train"
                raise ConfigError(
                    [
                        f"{key} = {text!r}: whole splits are converted; set {key}={base}. A part taken of the result is cut in its order, "
                        "as TFDS does it, where that of another source is drawn from a shuffled one"
                    ]
                )
            found[name] = _at(spec, split=name)
    if data.test_path is not None:
        if "test" in found:
            raise ConfigError(
                [f"data.split = 'test': the images of data.test_path = {data.test_path!r} become 'test'; set data.split=train"]
            )
        found["test"] = _at(spec, split="test", path=data.test_path)
    return found


def _at(spec: Spec, **changes: Any) -> Spec:
    """Undecoded: what is decoded into memory has lost its bytes."""
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, in_memory=False, mix=(), **changes))


def _facts(part: Spec) -> dict[str, Any]:
    """What the images of a split depend on."""
    facts = {key: getattr(part.data, key) for key in ("source", "path", "name", "args")}
    return {**facts, "size": part.views.size} if part.data.source == "digits" else facts


def _flags(spec: Spec, folder: Path) -> dict[str, Any]:
    """The keys that make a run of this configuration read the converted data."""
    flags: dict[str, Any] = {"source": "tfds", "path": folder.parent, "name": folder.name}
    if spec.data.source in ("digits", "idx", "npz") or spec.data.in_memory:
        flags["in_memory"] = "true"
    if spec.data.test_path is not None:
        flags |= {"test_path": "None", "test_split": "test"}
    if is_own(spec.data.source) and spec.data.args:
        flags["args"] = "{}"
    return flags


@contextlib.contextmanager
def _bar(what: str) -> Iterator[Say]:
    """A bar on stderr; what is done before its first step, as finding the data, counts too."""
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
