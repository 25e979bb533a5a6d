"""How fast a configuration trains here: the step, the augmentation in it, and the input that feeds it, side by side in one run.

    python -m experiments.speed.bench --config configs/digits.py

A sample is one image and its two views. The last column is each row's time as a share of the step's, measured in the same run: on a
noisy machine only that column should be compared. Input above 100% means that a run waits for its data.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from byol_jax import augment, build, config, data, method, parallel


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call, after one that may compile."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def step_call(spec: config.Spec, source: Any, batch: dict[str, np.ndarray]) -> Callable[[], Any]:
    """One training step on a batch that is already on the devices; its state goes on from call to call."""
    schedule = build.learning_rate(spec, len(source))
    byol, tx = build.byol(spec, build.num_classes(source)), build.optimizer(spec, schedule)
    make_views = augment.image_views(spec.views.recipe(), on=spec.data.augment_on)
    mesh = parallel.data_mesh()
    key = jax.random.key(spec.seed)
    step = method.make_train_step(
        byol, tx, ema=build.tau(spec, len(source)), augment=make_views, key=key, mesh=mesh, accumulate=spec.optimizer.accumulate
    )
    jitted = jax.jit(step, donate_argnums=0, out_shardings=parallel.replicated(mesh))
    held = {"state": parallel.replicate(method.init(byol, tx, key, batch, augment=make_views), mesh)}
    placed = parallel.to_global(batch, mesh)

    def call() -> Any:
        held["state"], metrics = jitted(held["state"], placed)
        return metrics

    return call


def augment_call(spec: config.Spec, batch: dict[str, np.ndarray]) -> Callable[[], Any]:
    """The device part of the views alone."""
    make_views = jax.jit(augment.image_views(spec.views.recipe(), on=spec.data.augment_on))
    placed, keys = jax.device_put(batch), jax.random.split(jax.random.key(0), len(batch["label"]))
    return lambda: make_views(keys, placed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--batch-size", type=int, default=None, help="default: the config's")
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()

    spec = config.load(args.config, [("batch_size", str(args.batch_size))] if args.batch_size else [])
    source = build.train_source(spec)
    stream: Iterator[dict[str, np.ndarray]] = iter(
        data.train_batches(source, build.training_views(spec), batch_size=spec.batch_size, seed=spec.seed, augment_on=spec.data.augment_on)
    )
    batch = next(stream)
    rows = {
        "step (augment, forward, backward, update)": seconds(step_call(spec, source, batch), args.repeats),
        "augment on the device, alone": seconds(augment_call(spec, batch), args.repeats),
        "input from disk or memory, alone": seconds(lambda: next(stream), 3 * args.repeats),
    }
    whole = rows["step (augment, forward, backward, update)"]
    table = Table(title=f"{args.config}, batch {spec.batch_size}, {jax.device_count()} x {jax.devices()[0].device_kind}")
    for heading in ("part", "ms", "samples/s", "share of step"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name, each in rows.items():
        table.add_row(name, f"{1e3 * each:.1f}", f"{spec.batch_size / each:,.0f}", f"{each / whole:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
