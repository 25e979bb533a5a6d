"""Tiny untrained encoders to serve, of images and of texts."""

from __future__ import annotations

import pytest

from byol_jax import data, views
from byol_jax.evaluate import Encoder, SentenceEncoder
from byol_jax.serve import Limits, Model, image_model, text_model
from tests.data.words import Count, learned
from tests.serve.asking import Flat


@pytest.fixture(scope="session")
def image_encoder() -> Encoder:
    return Encoder.untrained(Flat(), views.image(8))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> data.Tokenizer:
    return learned(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def sentence_encoder(tokenizer: data.Tokenizer) -> SentenceEncoder:
    """Counts of tokens, of texts of up to 40 tokens: rows of 16, 32 and 40."""
    return SentenceEncoder(Encoder(Count(), {}, views.TextViews(length=40, special=tokenizer.special)), tokenizer)


@pytest.fixture(scope="session")
def images(image_encoder: Encoder) -> Model:
    return image_model(image_encoder, Limits())


@pytest.fixture(scope="session")
def texts(sentence_encoder: SentenceEncoder) -> Model:
    return text_model(sentence_encoder, Limits())
