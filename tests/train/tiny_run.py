"""A real run with a tiny network, as a program: started, killed and started again by the tests of killing and of two processes.

usage: tiny_run.py WORKDIR STEPS [key=value ...]     keys: die_at, die_in_save, die_after, sleep, devices,
fail_data, fail_save (which batch or step), on (in which process), kill_data (the batch at which that process is killed),
resident (1: the images stay on the devices),
shard (1: each device holds a share of the state)
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path


def main() -> None:
    warnings.simplefilter("error")
    workdir, steps = Path(sys.argv[1]), int(sys.argv[2])
    options = dict(word.split("=") for word in sys.argv[3:])
    import jax

    jax.config.update("jax_num_cpu_devices", int(options.get("devices", 2)))
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    import numpy as np
    from jax.experimental import multihost_utils

    from byol_jax import data, parallel, views
    from byol_jax.method import MLP, Byol, sgd
    from byol_jax.train import Hook, pretrain

    parallel.initialize()
    from tests_tiny import Tiny

    class AskAllAndDie(Hook):
        def due(self, done: int) -> bool:
            return done == 5

        def evaluate(self, done: int, state: object) -> dict[str, float]:
            return {"processes": float(multihost_utils.process_allgather(np.int32(1)).sum())}

        def tick(self, done: int) -> None:
            time.sleep(float(options.get("sleep", 0)))
            if done == int(options.get("die_at", -1)):
                os.kill(os.getpid(), signal.SIGKILL)

    rng = np.random.default_rng(0)
    if "die_in_save" in options:
        die_during_save(int(options["die_in_save"]), float(options["die_after"]))
    if parallel.process_shard()[0] == int(options.get("on", 0)):
        fail_somewhere(int(options.get("fail_data", 0)), int(options.get("fail_save", 0)), int(options.get("kill_data", 0)))
    method = Byol(Tiny(), MLP(hidden=8, out=8), MLP(hidden=8, out=8), num_classes=10)
    run = pretrain(
        method,
        data.from_arrays(rng.integers(0, 256, (100, 8, 8, 3), np.uint8), rng.integers(0, 10, 100)),
        views=views.gray(8),
        batch_size=16,
        steps=steps,
        optimizer=sgd(0.1),  # Adam would blow up the rounding noise of gradients that are 0, those of biases before a norm
        seed=3,
        workdir=workdir,
        evaluate_every_epochs=0,
        checkpoint_every=5,
        log_every=1,
        keep=2,
        writers=["jsonl", AskAllAndDie()],
        data_on_device=options.get("resident") == "1",
        shard_state=options.get("shard") == "1",
    )
    leaves = jax.tree_util.tree_leaves_with_path(parallel.gather_to_host(run.state))
    if parallel.is_main():
        np.savez(workdir / "final.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})


def die_during_save(step: int, delay: float) -> None:
    """SIGKILL while the checkpoint of ``step`` is being written: ``delay`` seconds after its save began."""
    from byol_jax.checkpoint import Checkpoints

    original = Checkpoints.save

    def save(self: Checkpoints, at: int, *args: object, **kwargs: object) -> bool:
        if at == step:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        started = original(self, at, *args, **kwargs)  # type: ignore[arg-type]
        if at == step:
            time.sleep(60)  # the writing goes on in the background, the loop does not
        return started

    Checkpoints.save = save  # type: ignore[method-assign]


def fail_somewhere(batch: int, step: int, killed: int) -> None:
    """The data raises at its ``batch``-th batch, SIGKILL comes at its ``killed``-th, the disk is full when ``step`` is saved; 0: never."""
    from byol_jax.checkpoint import ocp
    from byol_jax.data.prefetch import Batches

    given, saving = Batches.__next__, ocp.CheckpointManager.save
    seen = itertools.count(1)

    def next_batch(self: Batches) -> object:
        count = next(seen)
        if count == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == batch:
            raise ValueError("7 of 9 files cannot be decoded")
        return given(self)

    def save(self: object, at: int, *args: object, **kwargs: object) -> bool:
        if at == step:
            raise OSError(errno.ENOSPC, "No space left on device")
        return bool(saving(self, at, *args, **kwargs))

    Batches.__next__, ocp.CheckpointManager.save = next_batch, save  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main()
