"""The report: what it reads, what it draws, and that the page stands alone."""

import base64
import dataclasses
import io
import json
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from byol_jax import data, views
from byol_jax.evaluate import Encoder, features, knn_features, save
from byol_jax.report import examples, history, pictures, plots, write_report

RECIPE = dataclasses.replace(views.gray(8), size=8)


class Thumbnail(nn.Module):
    """The image at 2 x 2 pixels, as a vector."""

    def __call__(self, x, train):
        batch, side = x.shape[0], x.shape[1] // 2
        return x.reshape(batch, 2, side, 2, side, 3).mean((2, 4)).reshape(batch, -1)


class Shapes:
    """A user's data set: images of unequal sizes, one of them unreadable, and no labels."""

    labels = None

    def __len__(self):
        return 110

    def __getitem__(self, i):
        if i == 3:
            raise data.BadImage("example 3 is damaged")
        return {"image": np.full((9 + i % 3, 12, 3), 2 * i, np.uint8)}


def _corners(n, seed=0):
    """Images with one bright corner, which is the class."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 4
    images = rng.integers(0, 60, (n, 8, 8, 3), np.uint8)
    for image, c in zip(images, label, strict=True):
        y, x = 4 * (c // 2), 4 * (c % 2)
        image[y : y + 4, x : x + 4] += 180
    return data.from_arrays(images, label, class_names=["north-west", "north-east", "south-west", "<south & east>"])


def _write_metrics(path, lines=30):
    path.mkdir(parents=True, exist_ok=True)
    records = [{"step": s, "loss": 4.0 - s / 10, "cosine_1": 0.1, "cosine_2": 0.2, "tau": 0.99, "learning_rate": 0.1} for s in range(lines)]
    records += [{"step": s, "knn_top1": 0.25 + s / 100, "rankme": 5.0} for s in (0, lines)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def _encoder():
    return Encoder(Thumbnail(), {}, RECIPE)


def test_metrics_are_read_back(tmp_path):
    text = '{"step": 4, "loss": 2.0}\n{"step": 0, "loss": 3.0, "tau": null}\n{"step": 4, "loss": 1.5, "note": "x"}\n{"step": 9, "lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    found = history.read_metrics(tmp_path)
    assert found.keys() == {"loss"}
    assert (found["loss"].steps.tolist(), found["loss"].values.tolist()) == ([0, 4], [3.0, 1.5])
    assert history.headlines(found) == [("steps", "5"), ("loss (0 to 8)", "1.500")]
    evaluated = found | {"knn_top1": history.Curve(np.array([0, 5]), np.array([0.5, 0.75]))}
    assert history.headlines(evaluated) == [("steps", "5"), ("loss (0 to 8)", "1.500"), ("k-NN top-1", "75.0%")]


def test_metrics_errors(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl does not exist; is .* the workdir of a run"):
        history.read_metrics(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\nnonsense\n{"step": 1}\n')
    with pytest.raises(ValueError, match=r"line 2 of .* is not JSON: 'nonsense'"):
        history.read_metrics(tmp_path)


def test_page_stands_alone_and_shows_everything(tmp_path):
    train, test = _corners(40), _corners(24, seed=1)
    _write_metrics(tmp_path)
    (tmp_path / "config.json").write_text('{"seed": 7, "note": "<b>&"}')
    encoder = _encoder()
    save(tmp_path, "knn", knn_features(features(encoder, train), features(encoder, test), k=(1, 5)))
    path = write_report(tmp_path, encoder, train, RECIPE, test=test)
    page = path.read_text()
    assert path == tmp_path / "report" / "index.html"
    assert not re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page)  # nothing is fetched
    assert re.findall(r'<h2 id="(\w+)"', page) == [
        "evaluations",
        "quality",
        "training",
        "views",
        "map",
        "neighbours",
        "config",
    ]
    assert "&#34;note&#34;: &#34;&lt;b&gt;&amp;&#34;" in page  # escaped
    assert "k-NN, 40 training and 24 test examples" in page
    assert "<td>100.0</td>" in page
    assert "<b>55.0%</b><span>k-NN top-1</span>" in page
    embedded = [base64.b64decode(m) for m in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    beside = [(path.parent / f"{name}.png").read_bytes() for name in ("quality", "training", "views", "map", "neighbours")]
    assert embedded == beside
    for content in embedded:
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
        assert pixels.std() > 5  # something is drawn


def test_report_of_an_unlabelled_user_source(tmp_path):
    """Its one damaged file (of 110: below the limit) is left out, and what follows it keeps its place."""
    found = features(_encoder(), Shapes())
    assert found.index.tolist() == [0, 1, 2, *range(4, 110)]
    np.testing.assert_allclose(found.embedding[:, 0], 2 * found.index / 255 * 2 - 1, atol=0.01)
    _write_metrics(tmp_path, lines=3)
    page = write_report(tmp_path, _encoder(), Shapes(), None).read_text()
    assert re.findall(r'<h2 id="(\w+)"', page) == ["quality", "training", "map", "neighbours"]


def test_squares_of_a_user_source():
    out = pictures.squares(Shapes(), np.array([2, 3]), 6)
    assert np.abs(out[0].astype(int) - 4).max() <= 1
    assert (out[1] == 255).all()  # the damaged one is left white


def test_one_of_each_class_takes_turns():
    positions = examples.one_of_each_class(_corners(40), 6, seed=0)
    assert _corners(40).labels[positions].tolist() == [0, 1, 2, 3, 0, 1]
    assert len(set(positions)) == 6
    unlabelled = data.from_arrays(np.zeros((9, 4, 4, 3), np.uint8))
    assert len(set(examples.one_of_each_class(unlabelled, 5, seed=0))) == 5


def _captions(figure):
    return [ax.get_xlabel() for ax in figure.axes if ax.get_xlabel()]


def test_neighbours_are_those_of_the_encoder():
    train, test = _corners(40), _corners(24, seed=1)
    figure = pictures.neighbour_rows(_encoder(), test, train, features(_encoder(), train), train.class_names, rows=4, k=3)
    captions = _captions(figure)
    for row, name in enumerate(train.class_names):
        query, *nearest = captions[4 * row : 4 * row + 4]
        assert query == name
        assert all(caption.startswith(name) for caption in nearest)


def test_a_query_is_not_its_own_neighbour():
    train = _corners(8)
    figure = pictures.neighbour_rows(_encoder(), train, train, features(_encoder(), train), None, rows=2, k=7)
    tiles = [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]
    for query, *others in (tiles[:8], tiles[8:]):
        assert len(others) == 7
        assert not any(np.array_equal(query, other) for other in others)


def test_views_are_shown_as_pixels():
    still = RECIPE.both(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0), jitter=0.0)
    source = _corners(4)
    figure = pictures.view_grid(source, still, rows=4, draws=1)
    tiles = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    assert len(tiles) == 12
    for i in range(0, 12, 3):
        np.testing.assert_allclose(tiles[i + 1], np.asarray(tiles[i]) / 255, atol=1e-5)
        np.testing.assert_allclose(tiles[i + 2], tiles[i + 1], atol=1e-5)


def test_map_edges():
    few = features(_encoder(), _corners(8))
    assert pictures.embedding_map(few, None) is None
    same = dataclasses.replace(few, embedding=np.ones((40, 12), np.float32), label=np.arange(40, dtype=np.int32) % 2)
    (ax,) = pictures.embedding_map(same, None).axes
    assert {tuple(offset) for c in ax.collections for offset in np.asarray(c.get_offsets())} == {(0.0, 0.0)}


def test_curves_show_the_panels_that_have_numbers():
    curve = history.Curve(np.array([0, 10]), np.array([1.0, 2.0]))
    assert plots.curves({"other": curve}, plots.TRAINING) is None
    figure = plots.curves({"loss": curve, "tau": curve}, plots.TRAINING)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Loss", "Target decay"]
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xydata(), [[0, 1], [10, 2]])
    held_out = history.Curve(np.array([10]), np.array([3.0]))
    both = plots.curves({"loss": curve, "held_out_loss": held_out}, plots.TRAINING).axes[0]
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["training batches", "held-out examples"]
    np.testing.assert_array_equal(both.lines[1].get_xydata(), [[10, 3]])
    assert jnp.isfinite(jnp.asarray(figure.get_size_inches(), jnp.float32)).all()
