"""Views of texts: cases by hand, shares by counting, and the same contract as images: once an epoch, resumable, sharded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byol_jax import views as recipes
from byol_jax.data import Shard, from_arrays, spread
from byol_jax.data.pipeline import eval_batches, train_batches
from byol_jax.data.source import BadImage
from byol_jax.views import SpecialTokens, TextView, TextViews
from tests.data.words import learned, token_source

MARKS = SpecialTokens((101,), (102,), pad=0, mask=103)


def view(tokens: list[int], u: np.ndarray, view: TextView, length: int = 12) -> list[int]:
    from byol_jax.data import spans

    views = TextViews(length=length, special=MARKS)
    return spans.view_of(np.array(tokens, np.int32), np.asarray(u, np.float32), view, views).numpy().tolist()


def draws(room: int = 10, **values: object) -> np.ndarray:
    """Zeros for length, place and masks; ones (nearly) where a token would be deleted or masked by chance."""
    u = np.full(2 + 3 * room + 4, 0.999, np.float32)
    u[:2], u[2 + room : 2 + 2 * room] = 0, 0
    for name, value in values.items():
        u[
            {
                "length": 0,
                "place": 1,
                "removal": slice(2, 2 + room),
                "order": slice(2 + room, 2 + 2 * room),
                "hidden": slice(2 + 2 * room, None),
            }[name]
        ] = value
    return u


def test_nothing_changed_is_the_text_between_its_marks() -> None:
    assert view([1, 2, 3], draws(), TextView()) == [101, 1, 2, 3, 102, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("length", "place", "kept"),
    [(0.0, 0.0, [1, 2]), (0.0, 0.999, [7, 8]), (0.999, 0.0, [1, 2, 3, 4]), (0.999, 0.5, [3, 4, 5, 6]), (0.5, 0.0, [1, 2, 3])],
)
def test_a_span(length: float, place: float, kept: list[int]) -> None:
    got = view([1, 2, 3, 4, 5, 6, 7, 8], draws(length=length, place=place), TextView(span=(0.25, 0.5)))
    assert got == [101, *kept, 102] + [0] * (10 - len(kept))


def test_a_long_text_is_a_window_of_what_fits() -> None:
    assert view(list(range(1, 21)), draws(place=0.999), TextView()) == [101, *range(11, 21), 102]


def test_deletion() -> None:
    removal = np.array([0.1, 0.9, 0.4, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    assert view([1, 2, 3, 4], draws(removal=removal), TextView(delete=0.5))[:4] == [101, 2, 4, 102]
    assert view([1, 2, 3, 4], draws(removal=np.zeros(10)), TextView(delete=0.5))[:3] == [101, 1, 102]  # one always stays


def test_reordering() -> None:
    order = np.array([0.9, 0.0, 0.0, 0.9, 0.0] + [0.0] * 5)  # keys 0 + 2.7, 1, 2, 3 + 2.7, 4
    assert view([1, 2, 3, 4, 5], draws(order=order), TextView(reorder=2))[:7] == [101, 2, 3, 1, 5, 4, 102]


@pytest.mark.parametrize(
    ("starts", "kept"),
    [([2], [1, 2, 103, 103, 103]), ([4], [1, 2, 3, 4, 103]), ([], [1, 2, 3, 4, 5]), ([0], [103, 2, 3, 4, 5])],
)
def test_a_masked_span_of_three(starts: list[int], kept: list[int]) -> None:
    hidden = np.full(14, 0.999)
    hidden[[start + 2 if start else 0 for start in starts]] = 0  # place 0 of the draws is two places before the first token
    assert view([1, 2, 3, 4, 5], draws(hidden=hidden), TextView(mask=0.3, mask_span=3))[1:6] == kept


@pytest.mark.parametrize("mask_span", [1, 5])
def test_each_token_is_hidden_as_often_as_it_is_said(mask_span: int) -> None:
    from byol_jax.data import spans

    recipe = TextView(mask=0.3, mask_span=mask_span)
    u = np.random.default_rng(0).random((4000, 20 + mask_span - 1)).astype(np.float32)
    hidden = np.stack([spans.masked(row, 20, recipe).numpy() for row in u])
    # 5 deviations of a share of 0.3 among 4000 draws
    np.testing.assert_allclose(hidden.mean(0), 0.3, atol=5 * np.sqrt(0.3 * 0.7 / 4000))


def test_no_token_moves_farther_than_it_may() -> None:
    from byol_jax.data import spans

    place, recipe = np.arange(1, 41, dtype=np.int32), TextView(reorder=3)
    moved = set()
    for row in np.random.default_rng(0).random((200, 40)).astype(np.float32):
        kept, count = spans.rearranged(place, 40, np.ones(40, np.float32), row, recipe)
        assert int(count) == 40
        moved |= set(np.abs(kept.numpy() - place).tolist())
    assert moved == {0, 1, 2, 3}


def test_once_an_epoch_resumed_and_in_shards(tmp_path: Path) -> None:
    source = token_source(tmp_path, 22)
    views = _recipe(tmp_path)

    def run(steps: range, shard: Shard = Shard()) -> list[dict[str, np.ndarray]]:
        with train_batches(source, views, batch_size=8, seed=3, start_step=steps.start, shard=shard) as stream:
            return [next(stream) for _ in steps]

    whole = run(range(6))
    for name in ("view1", "view2"):
        assert whole[0][name].dtype == np.int32
        assert whole[0][name].shape == (8, 16)
        resumed = run(range(4, 6))
        np.testing.assert_array_equal(resumed[1][name], whole[5][name])
        shards = [run(range(6), Shard(i, 2)) for i in range(2)]
        np.testing.assert_array_equal(np.concatenate([shard[5][name] for shard in shards]), whole[5][name])
    labels = np.concatenate([batch["label"] for batch in whole])
    assert np.bincount(labels[:22]).tolist() == np.bincount(source.labels).tolist()
    assert any((batch["view1"] != batch["view2"]).any() for batch in whole)


def _recipe(folder: Path) -> TextViews:
    import dataclasses

    views = recipes.document(16).both(mask=0.1, mask_span=2, delete=0.1, reorder=1)
    return dataclasses.replace(views, special=learned(folder).special)


def test_evaluation_reads_the_first_tokens_in_order(tmp_path: Path) -> None:
    source, tokenizer = token_source(tmp_path, 10), learned(tmp_path)
    batches = list(eval_batches(source, _recipe(tmp_path), batch_size=4))
    assert [len(batch["tokens"]) for batch in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([batch["tokens"] for batch in batches]), tokenizer.rows(source.texts, 16))
    assert len(spread(source, 5)) == 5


def test_your_own_views_of_texts(tmp_path: Path) -> None:
    source = token_source(tmp_path, 10)

    def views(example, seed):
        return {"view1": example["tokens"][:1], "view2": example["tokens"][:1] + 1}

    with train_batches(source, views, batch_size=4, seed=0) as stream:
        batch = next(stream)
    np.testing.assert_array_equal(batch["view1"] + 1, batch["view2"])


def test_a_recipe_for_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Views is a recipe for 'image', examples of TokenSource are 'tokens'"):
        train_batches(token_source(tmp_path, 10), recipes.small(), batch_size=4, seed=0)
    images = from_arrays(np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="TextViews is a recipe for 'tokens'"):
        eval_batches(images, recipes.sentence(), batch_size=4)


class Own:
    """A source of the user's, one of whose texts cannot be read."""

    content = "tokens"

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, object]:
        if index == 3:
            raise BadImage("text 3")
        return {"tokens": [index + 1] * 3, "label": index}


def test_a_source_of_the_users_with_a_text_that_cannot_be_read() -> None:
    views = TextViews(length=4, special=MARKS)
    with train_batches(Own(), views, batch_size=8, seed=0, max_bad_share=0.5) as stream:
        labels = sorted(next(stream)["label"].tolist())
        assert labels == [0, 1, 2, 4, 4, 5, 6, 7]
        assert stream.bad_files == ["text 3"]
    batches = list(eval_batches(Own(), views, batch_size=8, max_bad_share=0.5))
    assert batches[0]["index"].tolist() == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"span": (0.0, 1.0)}, "view1.span=(0.0, 1.0): wants 0 < low <= high <= 1"),
        ({"delete": 1.0}, "view2.delete=1.0: lies in [0, 1)"),
        ({"reorder": -1}, "view1.reorder=-1: 0 (as they stand) or more places"),
        ({"mask_span": 0}, "view2.mask_span=0: at least 1 token is hidden at a time"),
    ],
)
def test_what_is_out_of_range(changes: dict[str, object], message: str) -> None:
    assert message in TextViews(special=MARKS).both(**changes).errors()


def test_recipe_and_tokenizer_must_go_together() -> None:
    assert TextViews(length=2, special=MARKS).errors() == ["length=2: leaves no place for a token beside 2 special ones"]
    assert recipes.sentence(8).errors() == [f"view{i}.mask=0.1: the tokenizer has no mask token; set it to 0" for i in (1, 2)]
