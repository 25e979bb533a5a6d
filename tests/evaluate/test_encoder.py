"""The frozen encoder and features of a source: exact values, padding, partial batches, devices, errors."""

import dataclasses
import importlib

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from byol_jax import data, method, views
from byol_jax.augment import preprocess
from byol_jax.evaluate import Encoder, features, pixels

RECIPE = dataclasses.replace(views.gray(8), mean=(0.5,) * 3, std=(0.5,) * 3)


class Mean(nn.Module):
    """Mean pixel value of each channel: an encoder whose output is known."""

    def __call__(self, x, train):
        assert train is False
        return x.mean((1, 2))


class Tiny(nn.Module):
    """One convolution and a batch norm that averages over the training mesh: weights and running statistics matter."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(6, (3, 3), strides=2)(x)
        return nn.relu(nn.BatchNorm(use_running_average=not train, axis_name="data")(x)).mean((1, 2))


def _images(n, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), np.uint8)


def _mean_encoder(**kwargs):
    return Encoder(Mean(), {}, RECIPE, **kwargs)


def test_values_and_padding():
    images = _images(5)
    expected = (images / 255).mean((1, 2)) * 2 - 1
    for pad_to in (None, 3, 5, 32):
        out = _mean_encoder()(images, pad_to=pad_to)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, expected, atol=1e-6)


def test_no_rows():
    assert _mean_encoder()(_images(0), pad_to=8).shape == (0, 3)


def test_views_of_takes_what_preprocess_makes():
    images = _images(4, size=12)
    prepared = jax.jit(lambda x: preprocess(x, RECIPE))(images)
    np.testing.assert_allclose(np.asarray(_mean_encoder().views_of(prepared)), _mean_encoder()(images), atol=1e-6)


def test_equal_encoders_compile_once():
    module = importlib.import_module("byol_jax.evaluate.encoder")
    module._cached_forward.cache_clear()
    for _ in range(3):
        _mean_encoder()(_images(7), pad_to=8)
    assert module._cached_forward.cache_info().misses == 1
    assert module._forward(Mean(), RECIPE, True)._cache_size() == 1


def test_one_device_equals_eight():
    net = Tiny()
    one = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    wide, narrow = Encoder.untrained(net, RECIPE), Encoder.untrained(net, RECIPE, mesh=one)
    assert (wide.mesh.size, narrow.mesh.size) == (8, 1)
    images = _images(11)
    np.testing.assert_allclose(wide(images), narrow(images), atol=1e-5)
    assert wide(images).std() > 1e-3


def test_untrained_follows_its_seed():
    net = Tiny()
    first, same, other = (Encoder.untrained(net, RECIPE, seed=s)(_images(4)) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3


def test_from_state_is_the_online_encoder_with_running_statistics():
    net = Tiny()
    byol = method.Byol(encoder=net, projector=method.MLP(16, 8), predictor=method.MLP(16, 8))
    images = _images(8)
    x = jax.jit(lambda x: preprocess(x, RECIPE))(images)
    state = method.init(byol, method.sgd(0.1), jax.random.key(0), {"view1": x, "view2": x})
    mean = {k: jax.tree.map(lambda a: a + 0.25, v) if k == "batch_stats" else v for k, v in state.online.items()}
    state = state.replace(online=mean)  # so that the running statistics matter
    expected = byol.network().apply(state.online, x, False).embedding
    np.testing.assert_allclose(Encoder.from_state(byol, state, RECIPE)(images), expected, atol=1e-5)


def test_whole_network_gives_its_embedding():
    byol = method.Byol(encoder=Mean(), projector=method.MLP(8, 4), predictor=method.MLP(8, 4))
    variables = byol.network().init(jax.random.key(0), jnp.zeros((2, 8, 8, 3)), False)
    np.testing.assert_allclose(Encoder(byol.network(), variables, RECIPE)(_images(3)), _mean_encoder()(_images(3)), atol=1e-6)


class Listed(nn.Module):
    """Cannot be hashed: it holds an array."""

    scale: np.ndarray

    def __call__(self, x, train):
        return x.mean((1, 2)) * jnp.asarray(self.scale)


def test_unhashable_module():
    out = Encoder(Listed(np.full(3, 2, np.float32)), {}, RECIPE)(_images(2))
    np.testing.assert_allclose(out, 2 * _mean_encoder()(_images(2)), atol=1e-6)


class Map(nn.Module):
    def __call__(self, x, train):
        return x


def test_errors():
    with pytest.raises(ValueError, match=r"float64 \(2, 8, 8, 3\); the encoder takes uint8"):
        _mean_encoder()(np.zeros((2, 8, 8, 3)))
    with pytest.raises(ValueError, match="repeat gray images"):
        _mean_encoder()(np.zeros((2, 8, 8, 1), np.uint8))
    with pytest.raises(ValueError, match=r"expected float32 \[B, 8, 8, 3\]"):
        _mean_encoder().views_of(_images(2))
    with pytest.raises(ValueError, match=r"Map returned .* an encoder returns one array"):
        Encoder(Map(), {}, RECIPE)(_images(2))


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_features_keep_the_last_partial_batch_and_the_order(batch_size):
    images, labels = _images(10), np.arange(10) % 3
    found = features(_mean_encoder(), data.from_arrays(images, labels), batch_size=batch_size)
    np.testing.assert_allclose(found.embedding, (images / 255).mean((1, 2)) * 2 - 1, atol=1e-6)
    np.testing.assert_array_equal(found.label, labels)
    assert (found.embedding.dtype, found.label.dtype) == (np.float32, np.int32)


class OwnSource:
    """A user's data set of images of several sizes, without labels."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return {"image": np.full((8 + 2 * i, 9, 3), 50 * i, np.uint8)}


def test_features_of_a_user_source_are_cropped_and_resized_on_the_host():
    found = features(_mean_encoder(), OwnSource(), batch_size=2)
    np.testing.assert_allclose(found.embedding, np.repeat(np.array([[0], [50], [100]]) / 255 * 2 - 1, 3, 1), atol=1e-6)
    assert found.label.tolist() == [-1, -1, -1]


def test_pixels_of_gray_images_count_once():
    gray = _images(5)[..., :1]
    found = pixels(data.from_arrays(gray, np.zeros(5, np.int32)), RECIPE, batch_size=2)
    np.testing.assert_allclose(found.embedding, gray.reshape(5, 64) / 255, atol=1e-6)
    assert pixels(data.from_arrays(_images(5)), RECIPE).embedding.shape == (5, 192)
    assert pixels(data.from_arrays(_images(5, 40)), views.imagenet(40), max_size=16).embedding.shape == (5, 768)


def test_pixels_of_a_process_that_has_no_row(monkeypatch):
    """Of two processes the second has none of the last batch's rows."""
    monkeypatch.setattr(importlib.import_module("byol_jax.evaluate.features"), "Shard", lambda *_: data.Shard(1, 2))
    assert pixels(data.from_arrays(_images(5)), RECIPE, batch_size=4).embedding.shape == (1, 192)
    assert len(pixels(data.from_arrays(_images(4)), RECIPE, batch_size=4)) == 0


def test_features_reject_mismatched_parts():
    with pytest.raises(ValueError, match=r"expected \[N, D\] and \[N\]"):
        importlib.import_module("byol_jax.evaluate.features").Features(np.zeros((3, 2)), np.zeros(2))
    chex.assert_shape(features(_mean_encoder(), data.from_arrays(_images(3))).take(np.array([2, 0])).embedding, (2, 3))
