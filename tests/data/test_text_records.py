"""Text data sets of TFDS: a small one, prepared as TFDS prepares the true ones."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds

from byol_jax.data import tfds_texts

TEXTS = ["a good film", "schlecht", "很好的电影", "", "fine\nin two lines", "bad"]


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Reviews, every second one good; and texts without a label."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        names = tfds.features.ClassLabel(names=["bad", "good"])
        features = {"text": tfds.features.Text(), "title": tfds.features.Text(), "label": names, "score": np.float32}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager: Any) -> dict[str, Any]:
        return {"train": self._generate_examples(TEXTS)}

    def _generate_examples(self, texts: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, text in enumerate(texts):
            yield i, {"text": text, "title": f"title {i}", "label": i % 2, "score": i / 2}


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    config = tfds.download.DownloadConfig(num_shards=2)
    TinyReviews(data_dir=folder, file_format=request.param).download_and_prepare(download_config=config)
    return folder


def test_texts_with_their_classes(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = tfds_texts("tiny_reviews", data_dir=place)
    assert sorted(found.texts) == sorted(text for text in TEXTS if text)
    assert found.class_names == ["bad", "good"]
    assert found.labels is not None
    assert [TEXTS.index(text) % 2 for text in found.texts] == found.labels.tolist()
    assert "5 texts; left out or cut: 1 empty (tiny_reviews train, example" in caplog.text


def test_a_part_and_another_column_without_labels(place: Path) -> None:
    whole = tfds_texts("tiny_reviews", data_dir=place, text="title", label=None)
    assert sorted(whole.texts) == [f"title {i}" for i in range(6)]
    assert whole.labels is None
    assert tfds_texts("tiny_reviews", "train[2:4]", data_dir=place, text="title").texts == whole.texts[2:4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "txt"}, r"tiny_reviews has no feature 'txt': it has \['label', 'score', 'text', 'title'\]; did you mean 'text'"),
        ({"label": "score"}, r"the feature 'score' of tiny_reviews is float.., a class must be an integer"),
        ({"split": "trian"}, "no split 'trian'.*did you mean 'train'"),
    ],
)
def test_what_is_not_there(place: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tfds_texts("tiny_reviews", data_dir=place, **options)
