"""Embeddings of a whole data set in a file, part after part, so that a long pass goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from byol_jax import parallel
from byol_jax.data.files import legible
from byol_jax.data.records import WindowedSource
from byol_jax.data.source import subset
from byol_jax.evaluate.encoder import Encoder
from byol_jax.evaluate.features import Features, features

SUFFIXES = (".npz", ".parquet")
PART = 8192  # examples a part: what an interruption costs at most
LARGEST = 2 * 10**9  # bytes of an array of str in an .npz
Say = Callable[[int, int], None]


def embed(
    encoder: Encoder,
    source: Any,
    output: str | os.PathLike[str],
    *,
    facts: Mapping[str, Any] | None = None,
    batch_size: int = 256,
    part: int = PART,
    progress: Say | None = None,
) -> Path:
    """Writes every example's embedding to ``output``, in the source's order.

    The file holds ``embedding`` float32[N, D], ``label`` int32[N] (-1: none), ``index`` int64[N] (position in the source) and, of a
    folder, ``path`` (relative to it; a byte that is not UTF-8 as its escape), of texts ``text``; an ``.npz`` of labelled classes with
    names also has ``class_names``. Images that cannot be decoded are left out and named in the log. With several processes each embeds
    its share, and the first one writes.

    Args:
      output: ends in ``.npz`` or ``.parquet`` (needs pyarrow). Until it is whole, finished parts stand in ``<output>.parts``, and the
        next call goes on from them. A stream that can only be read from front to back is one part.
      facts: plain data that says what is embedded by what; parts made under other facts, or of other paths or texts, are refused.
      batch_size: rows a process sends to its devices at a time.
      part: examples a part.
      progress: called with (done, all) after every part.

    Raises:
      ValueError: an unknown suffix, a file already there, parts of another embedding, no image that can be decoded, texts too long for
        the arrays of an ``.npz``.
    """
    target = Path(output)
    _check_target(target)
    _check_words(target, source)
    parts = target.with_name(target.name + ".parts")
    n = len(source)
    size = n if isinstance(source, WindowedSource) else part
    listed = {f"sha256 of its {name}s": _digest(words) for name, words in _words(source).items()}
    _claim(parts, {"examples": n, "part": size, **listed, **(facts or {})})
    for start in range(0, n, size):
        file = parts / f"{start:012d}.npz"
        if not parallel.of_main(file.exists()):
            whole = start == 0 and size >= n
            rows = np.arange(start, min(start + size, n))
            found = features(encoder, source if whole else subset(source, rows), batch_size=batch_size, max_bad_share=1.0)
            _keep(file, found, start)
        if progress is not None:
            progress(min(start + size, n), n)
    if jax.process_index() == 0:
        _join(parts, target, source)
        shutil.rmtree(parts)
    return target


def _check_target(target: Path) -> None:
    if target.suffix not in SUFFIXES:
        raise ValueError(f"--output {target}: must end in {' or '.join(SUFFIXES)}")
    if target.exists():
        raise ValueError(f"--output {target}: is already there; choose another name or delete it")
    if target.suffix == ".parquet":
        _pyarrow(target)


def _check_words(target: Path, source: Any) -> None:
    """An array of str gives each the room of the longest, four bytes a character."""
    for name, words in _words(source).items():
        longest = max(map(len, words), default=0)
        if target.suffix == ".npz" and 4 * len(words) * longest > LARGEST:
            size = f"{4 * len(words) * longest / 1e9:,.1f} GB"
            raise ValueError(
                f"--output {target}: the longest {name} of {len(words):,} has {longest:,} characters, and an array of them {size}; "
                "an .npz takes 2 at most, choose .parquet"
            )


def _words(source: Any) -> dict[str, Sequence[str]]:
    """What can be read of each example: where it stands, or the text itself."""
    found = {"path": _legible(getattr(source, "paths", None)), "text": getattr(source, "texts", None)}
    return {name: words for name, words in found.items() if words is not None}


def _legible(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else [legible(name) for name in names]


def _digest(words: Sequence[str]) -> str:
    """Of all in their order; with their lengths, because a text may hold whatever would be put between two."""
    found = hashlib.sha256()
    for word in words:
        encoded = word.encode("utf-8", "surrogatepass")
        found.update(b"%d:%b" % (len(encoded), encoded))
    return found.hexdigest()


def _pyarrow(target: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(f"--output {target}: parquet needs pyarrow: pip install 'byol-jax[parquet]', or choose .npz") from error
    return pyarrow


def _claim(parts: Path, facts: dict[str, Any]) -> None:
    """Notes what is embedded, or finds that the parts there are of the same."""
    note = parts / "facts.json"
    before = json.loads(note.read_text(encoding="utf-8")) if note.exists() else facts
    changed = [
        f"{name} = {facts.get(name)!r} (it was {before.get(name)!r})" for name in {**before, **facts} if before.get(name) != facts.get(name)
    ]
    if changed:
        raise ValueError(f"{parts}: holds parts of another embedding: {', '.join(changed)}; delete the folder, or choose another --output")
    if jax.process_index() == 0 and not note.exists():
        parts.mkdir(parents=True, exist_ok=True)
        _whole(note, lambda path: path.write_text(json.dumps(facts), encoding="utf-8"))


def _keep(file: Path, found: Features, start: int) -> None:
    if jax.process_index() == 0:
        _whole(file, lambda path: np.savez(path, embedding=found.embedding, label=found.label, index=found.index + start))


def _whole(file: Path, write: Callable[[Path], object]) -> None:
    """Written under another name and renamed, so that what bears the name is complete."""
    partial = file.with_name(f".{os.getpid()}.{file.name}")
    write(partial)
    partial.replace(file)


def _read(parts: Path) -> Iterator[dict[str, np.ndarray]]:
    for file in sorted(parts.glob("[0-9]*.npz")):
        with np.load(file) as columns:
            yield dict(columns)


def _join(parts: Path, target: Path, source: Any) -> None:
    """One file of all parts; in memory is one part at a time (and the names)."""
    rows = sum(len(columns["index"]) for columns in _read(parts))
    if not rows:
        raise ValueError(f"embed: none of the {len(source)} images can be decoded; the log names them")
    kind = object if target.suffix == ".parquet" else np.str_
    words = {name: np.array(each, kind) for name, each in _words(source).items()}

    def columns() -> Iterator[dict[str, np.ndarray]]:
        for found in _read(parts):
            yield {name: each[found["index"]] for name, each in words.items()} | found

    write = _parquet if target.suffix == ".parquet" else _npz
    class_names = _legible(getattr(source, "class_names", None))
    _whole(target, lambda path: write(path, columns, rows, class_names))


def _npz(path: Path, columns: Callable[[], Iterator[dict[str, np.ndarray]]], rows: int, class_names: Any) -> None:
    first = next(columns())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, sample in first.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {"descr": sample.dtype.str, "fortran_order": False, "shape": (rows, *sample.shape[1:])}
                np.lib.format.write_array_header_1_0(file, header)
                for part in columns():
                    file.write(np.ascontiguousarray(part[name]).tobytes())
        if class_names is not None:
            with archive.open("class_names.npy", "w") as file:
                np.lib.format.write_array(file, np.array(class_names))


def _parquet(path: Path, columns: Callable[[], Iterator[dict[str, np.ndarray]]], rows: int, class_names: Any) -> None:
    arrow = _pyarrow(path)
    writer = None
    try:
        for part in columns():
            arrays = {name: arrow.array(column) for name, column in part.items() if name != "embedding"}
            flat = arrow.array(part["embedding"].ravel())
            arrays["embedding"] = arrow.FixedSizeListArray.from_arrays(flat, part["embedding"].shape[1])
            if class_names is not None:
                arrays["class"] = arrow.array([class_names[i] if i >= 0 else None for i in part["label"]])
            table = arrow.table(arrays)
            writer = writer or arrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()
