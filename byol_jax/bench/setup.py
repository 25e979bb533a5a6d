"""What a benchmark measures: the objects that ``byol_jax.train.pretrain`` would train with, and one batch for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from byol_jax import build, data, parallel
from byol_jax.build import objects, texts
from byol_jax.config import ConfigError, Spec
from byol_jax.method import Byol, ByolState, init
from byol_jax.train import resident, start
from byol_jax.views import TextViews, Views

CLASSES = 1000  # of synthetic data: ImageNet's
EXAMPLES = 1_281_167  # likewise; only schedules depend on it


@dataclass(frozen=True)
class Setup:
    """One training step's parts, assembled as for a run.

    Attributes:
      batch: what the host sends for a step, of it this process's rows; the index alone where ``held`` are the data on the devices.
    """

    spec: Spec
    method: Byol
    tx: optax.GradientTransformation
    ema: optax.Schedule
    augment: Any
    key: jax.Array
    mesh: Mesh
    batch: dict[str, np.ndarray]
    held: resident.Resident | None = None

    def state(self) -> ByolState:
        """A fresh state, laid out as a run's."""
        init_key, _ = jax.random.split(self.key)
        sent = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.spec.batch_size, *x.shape[1:]), x.dtype), self.batch)
        seen = resident.seen(self.held, sent)
        fresh = init(self.method, self.tx, init_key, seen, augment=self.augment, mesh=self.mesh)
        return start.laid_out(fresh, self.mesh, self.spec.optimizer.shard_state)

    def placed(self) -> Any:
        """The batch on the devices, as the step takes it."""
        return parallel.to_global(self.batch, self.mesh)

    def fetched(self) -> Any:
        """The batch on the devices, as the method sees it: examples, wherever they came from."""
        placed = self.placed()
        return placed if self.held is None else jax.jit(self.held.fetch)(self.held.rows, placed["index"])


def assemble(spec: Spec, *, synthetic: bool) -> Setup:
    """Everything for a step of this configuration.

    Args:
      synthetic: noise of the configuration's shapes instead of its data, which then need not be there.

    Raises:
      ConfigError, ValueError: the configuration does not fit its data or the devices.
    """
    mesh = parallel.data_mesh()
    parallel.check_batch(spec.batch_size, mesh, spec.optimizer.accumulate)
    held = None
    classes: objects.Classes = CLASSES
    if synthetic:
        batch, examples = _own_rows(noise(spec)), EXAMPLES
        # A run's length shapes its schedules alone. One of 100,000 steps without a warm-up goes with any configuration.
        spec = dataclasses.replace(
            spec, epochs=None, steps=100_000, optimizer=dataclasses.replace(spec.optimizer, warmup_epochs=None, warmup_steps=0)
        )
    else:
        source = build.train_source(spec)
        held = resident.hold(source, build.training_views(spec), spec.data.augment_on, mesh) if spec.data.on_device else None
        with _index_stream(spec, source) if held else training_stream(spec, source) as stream:
            batch = next(stream)
        examples, classes = len(source), build.num_classes(source) if spec.method.probe else 0
    _, augment = start.augmentation(build.training_views(spec), None, spec.data.augment_on)
    schedule = build.learning_rate(spec, examples)
    return Setup(
        spec=spec,
        method=build.byol(spec, classes),
        tx=build.optimizer(spec, schedule),
        ema=build.tau(spec, examples),
        augment=augment,
        key=jax.random.key(spec.seed),
        mesh=mesh,
        batch=batch,
        held=held,
    )


def training_stream(spec: Spec, source: Any) -> data.Batches:
    """The batches of this process that a run of this configuration would be fed."""
    options: dict[str, Any] = {"augment_on": spec.data.augment_on, "max_bad_share": spec.data.max_bad_share, "shard": _shard()}
    return data.train_batches(source, build.training_views(spec), batch_size=spec.batch_size, seed=spec.seed, **options)


def _index_stream(spec: Spec, source: Any) -> data.Batches:
    return data.index_batches(source, batch_size=spec.batch_size, seed=spec.seed, shard=_shard())


def _shard() -> data.Shard:
    return data.Shard(*parallel.process_shard())


def _own_rows(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a global batch that this process sends."""
    index, count = parallel.process_shard()
    return {name: np.split(rows, count)[index] for name, rows in batch.items()}


def noise(spec: Spec) -> dict[str, np.ndarray]:
    """A batch of noise as the host would send it: two views, or whole images of their size where crops are cut on the device.

    Raises:
      ConfigError: the views are a function of the user's own, whose shapes are known only by running it on data.
    """
    if spec.views.function is not None:
        raise ConfigError([f"--synthetic: views.function = {spec.views.function!r} makes views of its own form; bench it on its data"])
    draw, recipe = np.random.default_rng(spec.seed), build.recipe(spec)
    names = ("image",) if objects.crops_on_device(spec) else ("view1", "view2")
    views = {name: _NOISE[recipe.content](spec, recipe, draw) for name in names}
    return {**views, "label": draw.integers(0, CLASSES, spec.batch_size, np.int32)}


def _pixels(spec: Spec, recipe: Views, draw: np.random.Generator) -> np.ndarray:
    return draw.integers(0, 256, (spec.batch_size, recipe.size, recipe.size, 3), np.uint8)


def _tokens(spec: Spec, recipe: TextViews, draw: np.random.Generator) -> np.ndarray:
    """Rows without padding."""
    special = recipe.special
    words = np.setdiff1d(np.arange(texts.tokenizer(spec).vocab, dtype=np.int32), [special.pad])
    start, end = (np.tile(np.array(ids, np.int32), (spec.batch_size, 1)) for ids in (special.start, special.end))
    return np.concatenate([start, draw.choice(words, (spec.batch_size, recipe.room)), end], 1)


_NOISE: dict[str, Callable[[Spec, Any, np.random.Generator], np.ndarray]] = {Views.content: _pixels, TextViews.content: _tokens}
