"""What an evaluation of a run looks at: its encoder, its data, and what stands beside the encoder in the tables."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

from byol_jax import evaluate
from byol_jax.build import objects, texts
from byol_jax.build.kept import read_spec
from byol_jax.build.runs import load_sentence_encoder, test_or_error
from byol_jax.config import Spec
from byol_jax.convert.weights import ConvertError
from byol_jax.workdir import folder

LOG = logging.getLogger("byol_jax.build")
Sets = dict[str, tuple[evaluate.Features, evaluate.Features]]
BYOL = "BYOL"


@dataclass(frozen=True)
class Subject:
    """A run: its configuration, its encoder, and its folder."""

    spec: Spec
    encoder: evaluate.Encoder
    workdir: Any  # its folder, local or in a bucket

    def train(self) -> Any:
        """The labelled training data."""
        return objects.labelled_source(self.spec)

    def test(self) -> Any:
        """The test data. Raises ConfigError where the configuration has none."""
        return test_or_error(self.spec)

    def before(self) -> dict[str, evaluate.Encoder]:
        """The encoder as it was before the first step, by what it was; empty where the weights it started from are no longer there."""
        module, views = objects.encoder(self.spec), self.encoder.views
        try:
            start = texts.start(self.spec)
        except ConvertError as error:
            LOG.warning("the encoder before BYOL is left out: %s", error)
            return {}
        if start is None:
            return {"untrained": evaluate.Encoder.untrained(module, views, seed=self.spec.seed)}
        return {"before BYOL": evaluate.Encoder(module, start, views)}

    def features(self) -> tuple[evaluate.Features, evaluate.Features]:
        """Of the training and of the test data."""
        return evaluate.features(self.encoder, self.train()), evaluate.features(self.encoder, self.test())

    def compared_features(self) -> Sets:
        """The same of the encoder before the first step too, and of the examples as they are."""
        train, test = self.train(), self.test()
        encoders = {BYOL: self.encoder, **self.before()}
        found = {name: (evaluate.features(one, train), evaluate.features(one, test)) for name, one in encoders.items()}
        return found | evaluate.raw_features(train, test, self.encoder.views)

    def sets(self) -> Sets:
        """What k-NN and linear classifiers judge: texts beside their baselines; images alone, of which there may be millions."""
        return {BYOL: self.features()} if self.spec.text.preset is None else self.compared_features()

    def embeds(self, judged: list[str]) -> dict[str, evaluate.Embed]:
        """Texts to embeddings, by name; TF-IDF learns the rarity of words from the training texts and those that are judged.

        Where the training texts are at hand the encoders' embeddings come whitened over them too.
        """
        found: dict[str, evaluate.Embed] = {**self.sentence_encoders()}
        corpus = self._training_texts()
        if len(corpus) > 1:
            found = evaluate.with_whitened(found, corpus)
        return {**found, "TF-IDF": evaluate.TfIdf([*corpus, *judged])}

    def sentence_encoders(self) -> dict[str, evaluate.SentenceEncoder]:
        """The run's encoder and the one before the first step, with the tokenizer, by name."""
        words = texts.tokenizer(self.spec)
        return {name: evaluate.SentenceEncoder(one, words) for name, one in {BYOL: self.encoder, **self.before()}.items()}

    def _training_texts(self) -> list[str]:
        try:
            return getattr(objects.train_source(self.spec), "texts", None) or []
        except ValueError as error:
            LOG.warning("no embeddings are whitened, and TF-IDF learns from the judged texts alone: %s", error)
            return []


def sentence_encoders(workdir: str | os.PathLike[str]) -> dict[str, evaluate.SentenceEncoder]:
    """The encoder of a run of texts as "BYOL", and as it was before the first step as "untrained", or "before BYOL" where it had weights.

    Raises:
      ValueError: as ``load_sentence_encoder``.
    """
    spec = read_spec(workdir)
    return Subject(spec, load_sentence_encoder(workdir, spec=spec).encoder, folder(workdir)).sentence_encoders()
