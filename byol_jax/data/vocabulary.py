"""Learning a vocabulary from texts: BERT's kind or RoBERTa's, by Hugging Face's ``tokenizers`` (extra ``text``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from byol_jax.data.tokens import Tokenizer

Kind = Literal["wordpiece", "bpe"]
_WORDPIECE = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_BPE = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def train_tokenizer(texts: Sequence[str], output: str | Path, *, kind: Kind = "wordpiece", vocab: int = 8192) -> Tokenizer:
    """Learns a lower-casing WordPiece (as BERT's) or a byte-level BPE (as RoBERTa's) from texts, and writes its ``tokenizer.json``.

    Chinese characters are words of their own for WordPiece; BPE reads bytes and knows every script. The same texts give the same file.

    Raises:
      ValueError: an unknown kind, a vocabulary too small for the special tokens and letters.
    """
    if kind not in ("wordpiece", "bpe"):
        raise ValueError(f"tokenizer: kind = {kind!r} is not one of ['bpe', 'wordpiece']")
    if vocab < 300:
        raise ValueError(f"tokenizer: vocab = {vocab}: must be 300 or more, to hold letters and special tokens")
    made = (_wordpiece if kind == "wordpiece" else _bpe)(texts, vocab)
    start, end = ("[CLS]", "[SEP]") if kind == "wordpiece" else ("<s>", "</s>")
    _put_around(made, start, end)
    path = Path(output).expanduser()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    made.save(str(partial))
    partial.replace(path)
    return Tokenizer(path)


def _wordpiece(texts: Sequence[str], vocab: int) -> Any:
    from tokenizers import models, trainers

    learner = _bert(models.WordPiece(unk_token="[UNK]"))
    # The trainer numbers the pieces of one letter by the order of a hash map, and its choice among equals by their numbers. Given as
    # special tokens they have numbers of ours, and the same texts give the same vocabulary; they are taken out of that list below.
    letters = sorted({f"##{letter}" for text in texts for word in _words(learner, text) for letter in word[1:]})
    special = [*_WORDPIECE, *letters]
    learner.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=vocab, special_tokens=special, show_progress=False))
    made = _bert(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    made.add_special_tokens(list(_WORDPIECE))
    return made


def _bert(model: Any) -> Any:
    from tokenizers import Tokenizer as Made
    from tokenizers import decoders, normalizers, pre_tokenizers

    made = Made(model)
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def _words(tokenizer: Any, text: str) -> list[str]:
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(text))]


def _bpe(texts: Sequence[str], vocab: int) -> Any:
    from tokenizers import Tokenizer as Made
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = Made(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(_BPE), initial_alphabet=letters, show_progress=False)
    made.train_from_iterator(texts, trainer)
    return made


def _put_around(made: Any, start: str, end: str) -> None:
    from tokenizers.processors import TemplateProcessing

    special = [(name, made.token_to_id(name)) for name in (start, end)]
    made.post_processor = TemplateProcessing(single=f"{start} $A {end}", pair=f"{start} $A {end} $B {end}", special_tokens=special)
