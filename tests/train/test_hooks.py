"""The collapse monitor: when it warns, and when it does not."""

from __future__ import annotations

import logging

import pytest

from byol_jax.train import CollapseMonitor


@pytest.fixture
def warnings_of(caplog):
    def feed(*logs: dict[str, float]) -> list[str]:
        monitor = CollapseMonitor()
        with caplog.at_level(logging.WARNING, logger="byol_jax.train"):
            for n, metrics in enumerate(logs):
                monitor.log(100 * n, metrics)
        return [record.getMessage() for record in caplog.records]

    return feed


def test_a_collapse_is_said_once_with_advice(warnings_of):
    messages = warnings_of(*[{"embedding_std": 0.001}] * 6)
    assert len(messages) == 1
    assert messages[0].startswith("step 200: the embeddings are collapsing: embedding_std = 0.001, below 0.02, 3 times running")
    assert "Lower the learning rate first" in messages[0]


def test_a_rank_near_one_is_a_collapse_too(warnings_of):
    (message,) = warnings_of(*[{"rankme": 1.2}, {"loss": 1.0}] * 3)
    assert "rankme = 1.2, below 2" in message


def test_a_passing_low_is_not(warnings_of):
    low, high = {"embedding_std": 0.001, "rankme": 1.0}, {"embedding_std": 0.6, "rankme": 30.0}
    assert warnings_of(low, low, high, low, low, high, high) == []
