"""Teacher and student as frozen encoders, timed in turns: milliseconds of one image and of a batch of 64, by the clock and the processor.

python -m experiments.distillation.latency runs/digits runs/distillation/small/alone/seed0
"""

from __future__ import annotations

import sys
from functools import partial

import jax
import numpy as np

from byol_jax import build
from byol_jax.bench.timing import in_turns, ratio

if __name__ == "__main__":
    encoders = {name: build.load_encoder(place) for name, place in zip(("teacher", "student"), sys.argv[1:3], strict=True)}
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    for rows in (1, 64):
        times = in_turns({name: partial(encoder, images[:rows]) for name, encoder in encoders.items()}, repeats=21)
        for name, timed in times.items():
            parameters = sum(leaf.size for leaf in jax.tree.leaves(encoders[name].variables["params"]))
            print(
                f"{name}, {parameters:,} parameters, {rows} images: {1e3 * timed.median:.2f} ms, processor {1e3 * timed.median_cpu:.2f} ms"
            )
        print(f"the teacher takes {ratio(times['teacher'].cpu, times['student'].cpu):.1f} times the processor's time")
