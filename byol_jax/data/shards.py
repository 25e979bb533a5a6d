"""Records in ArrayRecord files, each noted with its checksum: writing goes on where it was stopped, and what stands there can be checked.

A split's shards are ``NAME-SPLIT.array_record-00000-of-00012``; ``SPLIT.manifest.json`` beside them says of what they are made and which
are whole. A shard is written under a hidden name and renamed when it is whole, and noted after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# One record a group gives random access; images are compressed already: on records of 110 kB of noise zstd, TFDS's choice, wrote 112 MB/s
# where this wrote 504, and read 324 where this read 831 (one core).
_OPTIONS = "group_size:1,uncompressed"
_SUFFIX = ".manifest.json"
Say = Callable[[int, int], None]  # (done, all)


class Manifest:
    """What a split is made of (``facts``), a note of each whole shard by its file's name, and how many this process has ``written``."""

    def __init__(self, path: Path) -> None:
        self.path, self.folder, self.split = path, path.parent, path.name.removesuffix(_SUFFIX)
        read = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"facts": {}, "shards": {}}
        self.facts: dict[str, Any] = read["facts"]
        self.shards: dict[str, dict[str, Any]] = read["shards"]
        self.written = 0

    def claim(self, facts: Mapping[str, Any]) -> None:
        """Notes what is to be written, or finds that it is the same as before. ValueError names what differs."""
        new = json.loads(json.dumps(facts))
        old = self.facts if self.shards else new
        changed = [f"{key} = {new.get(key)!r} (it was {old.get(key)!r})" for key in {**old, **new} if old.get(key) != new.get(key)]
        if changed:
            raise ValueError(
                f"{self.path}: the shards there are of another conversion: {', '.join(changed)}; choose another --output, or delete "
                f"{self.split}{_SUFFIX} and the shards of {self.split!r}"
            )
        self.facts = new
        self._write()

    def names(self) -> list[str]:
        """Of all shards, written or not."""
        count = self.facts["shards"]
        return [f"{self.facts['name']}-{self.split}.array_record-{i:05d}-of-{count:05d}" for i in range(count)]

    def has(self, name: str) -> bool:
        """Whether a shard is noted and stands there in its length."""
        path = self.folder / name
        return name in self.shards and path.exists() and path.stat().st_size == self.shards[name]["bytes"]

    def whole(self) -> bool:
        """Whether all shards are noted."""
        return all(name in self.shards for name in self.names())

    def note(self, name: str, facts: Mapping[str, Any]) -> None:
        """Notes a whole shard."""
        self.shards[name] = dict(facts)
        self.written += 1
        self._write()

    def faults(self, name: str) -> str | None:
        """What is wrong with a shard, or None: its length, SHA-256 and number of records are compared with its note."""
        path, note = self.folder / name, self.shards.get(name)
        if note is None:
            return f"{name}: was never written"
        if not path.exists():
            return f"{name}: is missing"
        found = measured(path)
        wrong = [f"{key} {found[key]}, noted {note[key]}" for key in found if found[key] != note[key]]
        return f"{name}: {'; '.join(wrong)}" if wrong else None

    def _write(self) -> None:
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text(json.dumps({"facts": self.facts, "shards": self.shards}, indent=1), encoding="utf-8")
        partial.replace(self.path)


def manifests(folder: Path) -> list[Manifest]:
    """Of all splits in a folder, by name."""
    return [Manifest(path) for path in sorted(folder.glob(f"[!.]*{_SUFFIX}"))]


def manifest(folder: Path, split: str) -> Manifest:
    """Of one split, there or not."""
    return Manifest(folder / f"{split}{_SUFFIX}")


def write(path: Path, records: Iterable[bytes]) -> dict[str, Any]:
    """Writes a shard and returns its note: ``bytes``, ``records`` and ``sha256``. OSError if it cannot be written."""
    from array_record.python.array_record_module import ArrayRecordWriter

    partial = path.with_name(f".{path.name}.partial")  # no process id: what a killed run has left is written over
    writer, count = ArrayRecordWriter(os.fspath(partial), _OPTIONS), 0
    try:
        for record in records:
            _told(path, writer.write, record)
            count += 1
        _told(path, writer.close)
        note = measured(partial)
        if note["records"] != count:
            raise OSError(f"{path}: {note['records']} of its {count} records arrived on the disk")
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(RuntimeError):
            writer.close()
        partial.unlink(missing_ok=True)
        raise
    return note


def _told(path: Path, action: Callable[..., object], *args: bytes) -> None:
    try:
        action(*args)
    except RuntimeError as error:  # as the library tells of a full disk
        raise OSError(f"{path}: cannot be written ({error})") from None


def measured(path: Path) -> dict[str, Any]:
    """``bytes``, ``records`` and ``sha256`` of an ArrayRecord file as it stands on the disk; 0 ``records`` if it cannot be read as one."""
    from array_record.python.array_record_module import ArrayRecordReader

    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    records = 0
    with contextlib.suppress(RuntimeError):  # as the library tells of damage, some of it when the file is closed
        reader = ArrayRecordReader(os.fspath(path))
        found = reader.num_records()
        reader.close()
        records = found
    return {"bytes": path.stat().st_size, "records": records, "sha256": sha256}


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The only process that writes in a folder; a killed one gives way. ValueError if another does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ValueError(f"{folder}: another conversion is writing there; let it end") from None
    finally:
        os.close(handle)


def verify(folder: Path, progress: Say | None = None) -> dict[str, tuple[int, int]]:
    """Reads all shards again and compares them with their notes.

    Returns:
      Of each split: (examples, shards).

    Raises:
      ValueError: nothing was converted there; or names every shard that is missing, unfinished or damaged.
    """
    found = manifests(folder)
    if not found:
        raise ValueError(f"{folder}: holds no {'SPLIT' + _SUFFIX}; give the folder that `data convert` wrote, its --output")
    shards = [(one, name) for one in found for name in one.names()]
    wrong: list[str] = []
    for done, (one, name) in enumerate(shards, 1):
        wrong += filter(None, [one.faults(name)])
        if progress is not None:
            progress(done, len(shards))
    if wrong:
        lines = "\n  - ".join([f"{folder}: {len(wrong)} of {len(shards)} shards are not as they were written:", *wrong])
        raise ValueError(f"{lines}\ndelete the damaged ones and convert again with the same flags: the others stay")
    return {one.split: (sum(note["records"] for note in one.shards.values()), len(one.shards)) for one in found}
