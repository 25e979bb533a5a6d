"""The same network trained with all labels: what BYOL's features are measured against.

    python -m experiments.fashion_mnist.supervised --epochs 12 --output experiments/fashion_mnist/results.jsonl

Encoder, view recipe, batch size, optimizer and schedule are those of ``configs/fashion_mnist.py``; the loss is cross-entropy on one
view, through a linear classifier on the embedding. Prints one JSON line with the test accuracy of the last step.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from byol_jax import augment, build, config, data


class Classifier(nn.Module):
    """An encoder and a linear layer on top: [B, H, W, 3] -> logits [B, classes]."""

    encoder: nn.Module
    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return nn.Dense(self.classes)(self.encoder(x, train))


def make_step(model: Classifier, tx: optax.GradientTransformation, views: Any, key: jax.Array) -> Any:
    """``step(variables, opt_state, batch, i) -> (variables, opt_state, loss)``, on one device."""
    make_views = augment.image_views(views)

    def step(variables: Any, opt_state: Any, batch: Any, i: jax.Array) -> Any:
        keys = jax.random.split(jax.random.fold_in(key, i), len(batch["label"]))
        images = make_views(keys, batch)["view1"]

        def objective(params: Any) -> Any:
            logits, changed = model.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean(), changed

        (loss, changed), grads = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        updates, opt_state = tx.update(grads, opt_state, variables["params"])
        return {"params": optax.apply_updates(variables["params"], updates), **changed}, opt_state, loss

    return jax.jit(step, donate_argnums=(0, 1))


def accuracy(model: Classifier, variables: Any, source: data.ArraySource, views: Any) -> float:
    """Share of the source's images classified rightly."""
    classify = jax.jit(lambda v, images: model.apply(v, augment.preprocess(images, views), False).argmax(-1))
    batches = data.eval_batches(source, views, batch_size=500)
    return float(np.mean(np.concatenate([np.asarray(classify(variables, b["image"])) == b["label"] for b in batches])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/fashion_mnist.py")
    parser.add_argument("--epochs", type=int, default=None, help="default: as many as the config's BYOL run has")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=None, help="append the result to this file")
    args = parser.parse_args()

    overrides = [("seed", str(args.seed))] + ([("epochs", str(args.epochs))] if args.epochs else [])
    spec = config.load(args.config, overrides)
    train, test = build.train_source(spec), build.test_source(spec)
    views, steps = spec.views.recipe(), build.steps(spec, len(train))
    model = Classifier(build.encoder(spec).clone(bn_axis=None), build.num_classes(train))
    tx = build.optimizer(spec, build.learning_rate(spec, len(train)))
    init_key, step_key = jax.random.split(jax.random.key(spec.seed))
    variables = jax.jit(model.init, static_argnums=2)(init_key, jnp.zeros((1, views.size, views.size, 3)), False)
    opt_state = tx.init(variables["params"])
    step = make_step(model, tx, views, step_key)

    began = time.monotonic()
    batches = data.train_batches(train, views, batch_size=spec.batch_size, seed=spec.seed)
    for i, batch in zip(range(steps), batches, strict=False):
        variables, opt_state, loss = step(variables, opt_state, batch, jnp.int32(i))
        if i % 50 == 0 or i == steps - 1:
            print(f"step {i + 1}/{steps}  loss {float(loss):.4f}  {time.monotonic() - began:.0f} s", flush=True)
    result = {
        "what": "supervised, all labels",
        "seed": spec.seed,
        "epochs": spec.epochs,
        "seconds": round(time.monotonic() - began),
        "test_top1": accuracy(model, variables, test, views),
    }
    print(json.dumps(result))
    if args.output:
        with args.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
