"""What is timed where the images stay on the devices: the step that fetches them, in ours and in the official form."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import linen as nn

from byol_jax import build, config
from byol_jax.bench import setup, step
from byol_jax.config import Spec


class Dense(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(16)(x.reshape(len(x), -1))


@pytest.fixture(scope="module")
def spec() -> Spec:
    """The digits, which lie on the devices."""
    small = {"batch_size": "16", "views.size": "8", "optimizer.name": "sgd", "optimizer.learning_rate": "1e-3", "seed": "5"}
    heads = {f"method.{head}.{width}": "8" for head in ("projector", "predictor") for width in ("hidden", "out")}
    made = config.load("configs/digits.py", (small | heads).items())
    assert made.data.on_device
    return made


def assembled(spec: Spec) -> setup.Setup:
    """With another encoder, one that compiles soon."""
    made = setup.assemble(spec, synthetic=False)
    return dataclasses.replace(made, method=dataclasses.replace(made.method, encoder=Dense()))


def fed(spec: Spec) -> Spec:
    return dataclasses.replace(spec, data=dataclasses.replace(spec.data, on_device=False))


@pytest.mark.parametrize("form", [step.ours, step.official])
def test_the_step_takes_an_index_and_does_what_the_one_that_is_fed_does(spec: Spec, form: Callable[[setup.Setup], step.Program]) -> None:
    resident, wanted = assembled(spec), assembled(fed(spec))
    assert {name: (x.shape, x.dtype) for name, x in resident.batch.items()} == {"index": ((16,), np.int32)}
    assert set(wanted.batch) == {"image", "label"}
    program, peer = form(resident), form(wanted)
    (_, rows, batch), _ = program.compiled.in_avals
    assert {name: x.shape for name, x in rows.items()} == {"image": (1440, 8 * 8 * 3), "label": (1440,)}
    assert {name: x.shape for name, x in batch.items()} == {"index": (16,)}
    for _ in range(2):
        got, told = jax.device_get(program()), jax.device_get(peer())
        assert got["loss"] == told["loss"]
        assert got.keys() == told.keys()
    for ours, theirs in zip(jax.tree.leaves(program.state), jax.tree.leaves(peer.state), strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()


def test_the_augmentation_alone_gets_the_rows_of_the_index(spec: Spec) -> None:
    made = setup.assemble(spec, synthetic=False)
    source = build.train_source(spec)
    fetched = jax.device_get(made.fetched())
    np.testing.assert_array_equal(fetched["image"], source.images[made.batch["index"]])
    np.testing.assert_array_equal(fetched["label"], source.labels[made.batch["index"]])
    views = jax.device_get(step.augmentation(made)())
    wanted = jax.device_get(step.augmentation(setup.assemble(fed(spec), synthetic=False))())
    np.testing.assert_array_equal(views["view1"], wanted["view1"])


def test_noise_is_fed_whatever_the_configuration_says(spec: Spec) -> None:
    made = setup.assemble(spec, synthetic=True)
    assert made.held is None
    assert set(made.batch) == {"image", "label"}
    assert made.fetched()["image"].shape == (16, 8, 8, 3)


def test_a_process_sends_its_part_of_the_noise(spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = setup.noise(spec)
    monkeypatch.setattr("byol_jax.parallel.process_shard", lambda: (1, 4))
    batch = setup.assemble(spec, synthetic=True).batch
    for name in ("image", "label"):
        np.testing.assert_array_equal(batch[name], whole[name][4:8])


@pytest.mark.parametrize(("form", "barrier", "convolutions"), [(step.ours, True, 2), (step.official, False, 5)])
def test_the_official_form_takes_jaxs_own_layers(
    spec: Spec, form: Callable[[setup.Setup], step.Program], barrier: bool, convolutions: int
) -> None:
    """A norm's way back has a barrier in our form, and a convolution of one pixel is a product. The others are computed in four passes;
    two go back, to each kernel, and to each input but the stem's."""
    small = dataclasses.replace(spec.encoder, block="bottleneck", stages=(1,), channels=(16,), stem="small")
    program = form(setup.assemble(dataclasses.replace(spec, encoder=small), synthetic=True))
    text = program.traced.lower().as_text()
    assert ("optimization_barrier" in text) is barrier
    assert text.count("stablehlo.convolution") == 4 * convolutions + 2 * (2 * convolutions - 1)
