"""Texts as token ids: Hugging Face's ``tokenizers`` (extra ``text``), and a source of rows of ids that are made once and kept."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.data.arrays import existing
from byol_jax.data.source import LOG, UNLABELLED
from byol_jax.data.texts import TextSource
from byol_jax.views import SpecialTokens, TextViews
from byol_jax.workdir import folder, is_remote

AT_ONCE = 10_000  # texts tokenised in one call: enough for all cores, and little memory
_FORMAT = 1
_PADS, _MASKS = ("[PAD]", "<pad>"), ("[MASK]", "<mask>")


class Tokenizer:
    """A ``tokenizer.json``: text to ids, and what it puts around a text.

    Attributes:
      path: the file; json: what stands in it.
      vocab: how many ids there are.
      special: its special tokens.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises ValueError for a path that is not there or no tokenizer, and without the extra ``text``."""
        try:
            from tokenizers import Tokenizer as Loaded
        except ImportError:
            raise ValueError("tokenizer: needs the package tokenizers: pip install 'byol-jax[text]'") from None
        self.path = folder(path) if is_remote(path) else existing(path, "tokenizer")
        self.json: str = self.path.read_text(encoding="utf-8")
        try:
            self._inner = Loaded.from_str(self.json)
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"tokenizer: {self.path} is not a tokenizer.json of Hugging Face's tokenizers ({error})") from None
        self._inner.no_truncation()
        self._inner.no_padding()
        self.vocab: int = self._inner.get_vocab_size()
        self.special = self._special()

    def _special(self) -> SpecialTokens:
        """Found by looking at what it makes of a text, so that any post-processor is served."""
        before, after = self._around()
        known = (tuple(map(self._inner.token_to_id, names)) for names in (_PADS, _MASKS))
        pad, mask = (next((one for one in ids if one is not None), None) for ids in known)
        if pad is None:
            raise ValueError(f"tokenizer: {self.path} has none of {', '.join(_PADS)}; a batch of texts needs a token for padding")
        return SpecialTokens(before, after, pad, mask)

    def _around(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What it puts before a text and after it. A tokenizer may know no "a": then one of its own tokens is the text."""
        added = {token.content for token in self._inner.get_added_tokens_decoder().values()}
        for text in itertools.chain("a", sorted(self._inner.get_vocab().keys() - added)):
            inner = self._inner.encode(text, add_special_tokens=False).ids
            around = self._inner.encode(text).ids
            for first in range(len(around) if inner else 0):
                if around[first : first + len(inner)] == inner:
                    return tuple(around[:first]), tuple(around[first + len(inner) :])
        raise ValueError(f"tokenizer: {self.path} makes tokens of no text that was tried, not even of its own tokens")

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without special tokens, of any length."""
        return [one.ids for one in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def rows(self, texts: Sequence[str], length: int) -> np.ndarray:
        """int32[N, length]: each text between its special tokens, cut to fit, and padding."""
        return padded(self.ids(texts), TextViews(length=length, special=self.special))

    def text(self, ids: Sequence[int]) -> str:
        """What a row of ids says; padding is left out, other special tokens are not."""
        return self._inner.decode([int(one) for one in ids if one != self.special.pad], skip_special_tokens=False)


def padded(ids: Sequence[Sequence[int] | np.ndarray], views: TextViews) -> np.ndarray:
    """int32[N, length] of ids without special tokens: as many of the first as fit, between the special tokens, then padding."""
    rows = np.full((len(ids), views.length), views.special.pad, np.int32)
    for row, one in zip(rows, ids, strict=True):
        whole = [*views.special.start, *one[: views.room], *views.special.end]
        row[: len(whole)] = whole
    return rows


class TokenSource:
    """Texts as ids, in one array; what text training reads.

    Attributes:
      ids: all ids, one text after another, without special tokens; offsets: int64[N + 1], where each text begins.
      labels: int32[N] (-1: no label), or None; class_names: list of str, or None.
      texts: the texts themselves, for baselines and pages; None if they were not kept.
      tokenizer: what made the ids, and makes text of them again; None if it is not known.
    """

    content = "tokens"

    def __init__(
        self,
        ids: np.ndarray,
        offsets: np.ndarray,
        labels: np.ndarray | None = None,
        class_names: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        self.ids, self.offsets, self.labels, self.texts, self.tokenizer = ids, offsets, labels, texts, tokenizer
        self.class_names = None if class_names is None else list(class_names)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = UNLABELLED if self.labels is None else int(self.labels[index])
        return {"tokens": self.ids[self.offsets[index] : self.offsets[index + 1]].astype(np.int32), "label": label}

    def take(self, indices: Sequence[int] | np.ndarray) -> TokenSource:
        """The chosen texts as another source, with the same classes."""
        chosen = np.asarray(indices, np.int64)
        pieces = [self.ids[self.offsets[i] : self.offsets[i + 1]] for i in chosen]
        labels = None if self.labels is None else self.labels[chosen]
        texts = None if self.texts is None else [self.texts[i] for i in chosen]
        return TokenSource(_joined(pieces, self.ids.dtype), _offsets(map(len, pieces)), labels, self.class_names, texts, self.tokenizer)

    def __repr__(self) -> str:
        return f"TokenSource({len(self)} texts, {len(self.ids):,} tokens, {'no labels' if self.labels is None else 'labelled'})"


def tokenised(source: TextSource, tokenizer: Tokenizer, *, cache: str | Path | None = None) -> TokenSource:
    """The texts of a source as ids. A text that gives no token is left out, with a warning.

    Args:
      cache: a folder where ids are kept, under a name that depends on texts and tokenizer; None keeps none.
    """
    kept = None if cache is None else Path(cache).expanduser() / f"{_digest(source.texts, tokenizer)}.npz"
    if kept is not None and kept.is_file():
        with np.load(kept) as held:
            ids, offsets = held["ids"], held["offsets"]
    else:
        ids, offsets = _all_ids(source.texts, tokenizer)
        if kept is not None:
            _save(kept, ids, offsets)
    whole = TokenSource(ids, offsets, source.labels, source.class_names, source.texts, tokenizer)
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if not empty.size:
        return whole
    if empty.size == len(whole):
        raise ValueError(f"tokenised: {tokenizer.path} makes no token of any of the {len(whole)} texts")
    LOG.warning("tokenised: %d texts give no token and are left out (first: text %d)", empty.size, empty[0])
    return whole.take(np.setdiff1d(np.arange(len(whole)), empty))


def _all_ids(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    kind = np.uint16 if tokenizer.vocab <= 1 << 16 else np.uint32
    pieces: list[np.ndarray] = []
    lengths: list[int] = []
    for start in range(0, len(texts), AT_ONCE):
        found = tokenizer.ids(texts[start : start + AT_ONCE])
        pieces.append(_joined(found, kind))
        lengths += map(len, found)
    return _joined(pieces, kind), _offsets(lengths)


def _joined(pieces: Sequence[Sequence[int] | np.ndarray], kind: Any) -> np.ndarray:
    return np.concatenate([np.empty(0, kind), *(np.asarray(one, kind) for one in pieces)])


def _offsets(lengths: Iterator[int] | Sequence[int]) -> np.ndarray:
    return np.cumsum([0, *lengths], dtype=np.int64)


def _digest(texts: Sequence[str], tokenizer: Tokenizer) -> str:
    found = hashlib.sha256(json.dumps(_FORMAT).encode() + tokenizer.json.encode())
    for text in texts:
        found.update(hashlib.sha256(text.encode()).digest())  # of each apart: where one ends counts too
    return found.hexdigest()[:24]


def _save(path: Path, ids: np.ndarray, offsets: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(partial, ids=ids, offsets=offsets)
    partial.replace(path)
