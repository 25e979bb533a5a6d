"""What a run says of its state in between: neighbours among the examples that have labels, RankMe over the whole monitor set."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from byol_jax import views
from byol_jax.evaluate import Encoder, Features
from byol_jax.train import monitor

AXES = np.eye(4, dtype=np.float32)


@pytest.fixture
def look(monkeypatch):
    """What is found of these features, in place of those of a source, after ``step`` updates."""
    monkeypatch.setattr(Encoder, "from_state", lambda *_: None)

    def found(known: Features, asked: Features | None, step: int = 0) -> dict[str, float]:
        allowed = {id(known): 1.0, id(asked): 0.25}  # the sample may have too many bad ones by chance
        monkeypatch.setattr(monitor, "features", lambda _, source, max_bad_share: source if max_bad_share == allowed[id(source)] else None)
        options = {"examples": len(known), "k": 1, "max_bad_share": 0.25, "every_steps": 1, "steps": 2}
        (hook,) = monitor.evaluation(None, known, asked, views.gray(8), **options)
        return hook.evaluate(step, SimpleNamespace(step=np.int32(step)))

    return found


def test_only_what_has_a_label_votes_and_is_asked(look) -> None:
    known = Features(AXES[[0, 1, 2, 2]], np.array([5, 6, -1, 7], np.int32))
    asked = Features(AXES[[0, 1, 2, 3]], np.array([5, 5, 7, -1], np.int32))
    found = look(known, asked)
    assert found["knn_top1"] == pytest.approx(2 / 3)
    assert look(known, None).keys() == found.keys() - {"knn_top1", "knn_top5"}


@pytest.mark.parametrize(("labels", "lacking"), [((-1, 0), "training"), ((0, -1), "test")])
def test_without_labels_the_run_goes_on_and_says_it_once(look, caplog, labels, lacking) -> None:
    known, asked = (Features(AXES, np.full(4, label, np.int32)) for label in labels)
    with caplog.at_level(logging.WARNING, logger="byol_jax.train"):
        for step in (0, 1):
            assert look(known, asked, step).keys() == {"rankme", "features_std"}
    assert [record.getMessage() for record in caplog.records] == [f"no k-NN accuracy: no {lacking} example has a label"]


def test_rankme_sees_the_end_of_a_source_sorted_by_class(look) -> None:
    rows = np.repeat([0, 1, 2, 3], monitor.RANKME_ROWS // 2)
    assert look(Features(AXES[rows], rows.astype(np.int32)), None)["rankme"] == pytest.approx(4, rel=1e-4)
