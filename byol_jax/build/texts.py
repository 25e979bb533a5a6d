"""Runs of texts: their tokenizer, sources, recipe and encoder.

What such a run needs beside its checkpoints, the tokenizer and the model's own configuration, is kept in its folder.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from byol_jax import data, models
from byol_jax.config import ConfigError, Spec
from byol_jax.config.rules import SIZES
from byol_jax.convert import huggingface
from byol_jax.data.slices import chosen, parse
from byol_jax.data.texts import class_number
from byol_jax.data.vocabulary import Kind
from byol_jax.models.transformer import stacked
from byol_jax.views import TextViews
from byol_jax.workdir import folder, write_text

TOKENIZER, MODEL = "tokenizer.json", "encoder"  # in the folder of a run


def tokenizer(spec: Spec) -> data.Tokenizer:
    """The run's tokenizer: its own, or that of the model it starts from."""
    path = spec.text.tokenizer or str(Path(spec.encoder.path or "") / TOKENIZER)
    try:
        return data.Tokenizer(path)
    except ValueError as error:
        raise ConfigError([f"text.tokenizer = {path!r}: {error}"]) from None


def recipe(spec: Spec) -> TextViews:
    """The recipe with the tokenizer's special tokens in it. Raises ConfigError if they do not go together."""
    text = spec.text
    made = TextViews(length=text.length, view1=text.view1, view2=text.view2, special=tokenizer(spec).special)
    if faults := made.errors():
        raise ConfigError([f"text.{fault}" for fault in faults])
    return made


def raw(spec: Spec, path: str | None, split: str) -> data.TextSource:
    """The texts that a configuration names, as they stand in their files. Test texts get the classes of the training texts.

    Raises:
      ValueError: among others, a class that the training texts lack, or one by name where theirs are numbers.
    """
    if spec.data.source == "tfds":
        return data.tfds_texts(str(spec.data.name), split, data_dir=path, text=spec.text.column, label=spec.text.label_column)
    options: dict[str, Any] = {"text": spec.text.column, "label": spec.text.label_column, "max_bad_share": spec.data.max_bad_share}
    train = data.text_files(str(spec.data.path), **options)
    if path == spec.data.path:
        return train
    test = data.text_files(str(path), class_names=train.class_names, **options)
    if train.labels is not None and train.class_names is None and test.class_names is not None:
        name = next(one for one in test.class_names if class_number(one) is None)
        raise ConfigError([f"{path}: class {name!r} is a name, and those of {spec.data.path} are numbers; write one or the other in both"])
    return test


def source(spec: Spec, path: str | None, split: str) -> data.TokenSource:
    """The texts of a split as token ids."""
    found = data.tokenised(raw(spec, path, split), tokenizer(spec), cache=spec.text.cache)
    return found if (rows := _rows(spec, len(found), split)) is None else found.take(rows)


def _rows(spec: Spec, texts: int, split: str) -> np.ndarray | None:
    """Which of the texts in the files a split is of; None: all. TFDS has cut its parts itself."""
    return None if spec.data.source == "tfds" else chosen(texts, parse(split))


def encoder(spec: Spec) -> nn.Module:
    """The Transformer that reads this tokenizer's ids."""
    chosen, own = spec.encoder, spec.encoder.transformer
    words = tokenizer(spec)
    options: dict[str, Any] = {"dtype": jnp.dtype(chosen.dtype), "remat": chosen.remat, "scan": own.scan, "drop_path": chosen.drop_path}
    options |= {name: value for name in ("pooling", "dropout", "attention_dropout") if (value := getattr(own, name)) is not None}
    if chosen.name == "huggingface":
        fields = huggingface.fields(str(chosen.path))
        _check_words(words, fields["vocab"], fields["pad"], fields["positions"] - fields["first_position"], spec)
        return models.TextEncoder(**{**fields, **options})
    options |= {"vocab": words.vocab, "pad": words.special.pad, "positions": own.positions}
    if chosen.name == "transformer":
        return models.TextEncoder(**options, **{name: getattr(own, name) for name in SIZES}, head_width=own.head_width)
    return getattr(models, chosen.name)(**options)


def _check_words(words: data.Tokenizer, vocab: int, pad: int, longest: int, spec: Spec) -> None:
    faults = []
    if words.vocab > vocab:
        faults.append(f"text.tokenizer = {str(words.path)!r}: makes ids up to {words.vocab - 1}, the model has {vocab} embeddings")
    if words.special.pad != pad:
        faults.append(f"text.tokenizer = {str(words.path)!r}: pads with id {words.special.pad}, the model with {pad}")
    if spec.text.length > longest:
        faults.append(f"text.length = {spec.text.length}: the model in encoder.path reads {longest} tokens at most")
    if faults:
        raise ConfigError(faults)


def start(spec: Spec) -> dict[str, Any] | None:
    """The variables that the encoder starts from; None: fresh ones."""
    if spec.encoder.name != "huggingface":
        return None
    _, variables = huggingface.read(str(spec.encoder.path))
    params = variables["params"]
    return {"params": {**params, "stack": stacked(params["stack"])}} if spec.encoder.transformer.scan else variables


def learn_tokenizer(spec: Spec, output: str | None, *, kind: Kind, vocab: int) -> str:
    """Learns a tokenizer from the training texts, and writes it where the configuration looks for it, or to ``output``; a line on it."""
    if spec.text.preset is None:
        raise ConfigError(["text.preset = None: the configuration is one of images; a tokenizer is for texts ('sentence' or 'document')"])
    target = output or spec.text.tokenizer
    if target is None:
        raise ConfigError(
            ["--output: text.tokenizer = None does not say where the tokenizer belongs; give a path ending in tokenizer.json"]
        )
    found = raw(spec, spec.data.path, spec.data.split)
    if (rows := _rows(spec, len(found), spec.data.split)) is not None:
        found = found.take(rows)
    made = data.train_tokenizer(found.texts, target, kind=kind, vocab=vocab)
    return f"{made.vocab:,} tokens ({kind}), learned from {len(found):,} texts, written to {target}"


def keep_files(workdir: str | os.PathLike[str], spec: Spec) -> None:
    """Copies into the folder of a run of texts what it will need when its own files are gone."""
    if spec.text.preset is None:
        return
    place = folder(workdir)
    write_text(place / TOKENIZER, tokenizer(spec).json)
    if spec.encoder.path is not None:
        write_text(place / MODEL / "config.json", (Path(spec.encoder.path).expanduser() / "config.json").read_text(encoding="utf-8"))


def changed_files(workdir: str | os.PathLike[str], spec: Spec) -> list[str]:
    """An error for a tokenizer that is another than the run's."""
    kept = folder(workdir) / TOKENIZER
    if spec.text.preset is not None and kept.is_file() and kept.read_text(encoding="utf-8") != tokenizer(spec).json:
        return [f"text.tokenizer = {str(tokenizer(spec).path)!r}: is not the tokenizer that the run was begun with, {kept}"]
    return []


def with_kept_files(workdir: str | os.PathLike[str], spec: Spec) -> Spec:
    """The configuration with the run's own copies in place of files that are not where they were."""
    place = folder(workdir)
    if (place / TOKENIZER).is_file():
        spec = dataclasses.replace(spec, text=dataclasses.replace(spec.text, tokenizer=str(place / TOKENIZER)))
    if spec.encoder.path is not None and not Path(spec.encoder.path).expanduser().is_dir():
        spec = dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, path=str(place / MODEL)))
    return spec
