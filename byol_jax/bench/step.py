"""Speed of the training step, of its parts, and of the frozen encoder."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from byol_jax import build, data, evaluate, parallel
from byol_jax.bench import compiler, lightly
from byol_jax.bench.result import OFFICIAL, Result, Row
from byol_jax.bench.setup import Setup, assemble, noise
from byol_jax.bench.timing import in_turns, what_is_left
from byol_jax.config import ConfigError, Spec
from byol_jax.method import ByolState, make_train_step
from byol_jax.method.step import TrainStep
from byol_jax.models.forms import as_jax_has_it
from byol_jax.train import start
from byol_jax.train.resident import jitted

AUGMENT, UPDATE, PEER = "augment, alone", "update, alone", "official form: four passes, JAX's own layers"
SPLIT = "Augmentation and update were compiled and measured by themselves, in turns with the step; forward + backward is what is left."


class Program:
    """A compiled step and the state it goes on from; each call is one step on the same batch.

    Attributes:
      given: what the step takes beside the state: the batch, or where the data is on the devices its rows and the batch's index.
    """

    def __init__(self, step: TrainStep, setup: Setup) -> None:
        program, held = jitted(step, setup.held, setup.mesh, setup.spec.optimizer.shard_state)
        self.state, self.given = setup.state(), (*held, setup.placed())
        self.traced = program.trace(self.state, *self.given)
        self.compiled = self.traced.lower().compile()

    def __call__(self) -> Any:
        self.state, metrics = self.compiled(self.state, *self.given)
        return metrics


def ours(setup: Setup) -> Program:
    """The step as ``byol_jax.train.pretrain`` builds it."""
    options: dict[str, Any] = {"augment": setup.augment, "key": setup.key, "mesh": setup.mesh}
    made = make_train_step(setup.method, setup.tx, ema=setup.ema, accumulate=setup.spec.optimizer.accumulate, **options)
    return Program(made, setup)


def official(setup: Setup) -> Program:
    """The step with each view in a pass of its own, and with convolutions, norms and pools as JAX has them for any device."""
    options: dict[str, Any] = {"augment": setup.augment, "key": setup.key, "mesh": setup.mesh}
    with as_jax_has_it():
        return Program(make_train_step(setup.method, setup.tx, ema=setup.ema, stack_views=False, **options), setup)


def augmentation(setup: Setup) -> Callable[[], Any]:
    """The device's part of the views alone, on the devices that a step would use."""
    rows = parallel.split(setup.mesh)
    keys = jax.jit(partial(jax.random.split, num=setup.spec.batch_size), out_shardings=rows)(setup.key)
    return partial(jax.jit(setup.augment, out_shardings=rows), keys, setup.fetched())


def update(setup: Setup) -> Callable[[], Any]:
    """Optimizer and target alone, with gradients that are a thousandth of the parameters."""

    def change(state: ByolState, grads: Any) -> tuple[ByolState, jax.Array]:
        updates, opt_state = setup.tx.update(grads, state.opt_state, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        stats = state.target.get("batch_stats", {})
        follower, _ = setup.method.follower.move(state.target, stats, trained["online"], partial(setup.ema, state.step))
        online = {**state.online, "params": trained["online"]}
        changed = ByolState(state.step + 1, online, follower, opt_state, trained["probe"], state.memory)
        return changed, changed.step  # apart from the state, which the next call takes away: to wait for

    held = {"state": setup.state()}
    where = start.layout(held["state"], setup.mesh, setup.spec.optimizer.shard_state)
    jitted = jax.jit(change, donate_argnums=0, out_shardings=(where, where.step))
    grads = jax.tree.map(lambda x: 1e-3 * x, held["state"].trained)

    def call() -> jax.Array:
        held["state"], count = jitted(held["state"], grads)
        return count

    return call


def step(spec: Spec, *, repeats: int, synthetic: bool, baseline: bool, peer: str | None) -> Result:
    """The whole step and its parts; with ``baseline`` the official form in turns with it, and with ``peer`` lightly's step."""
    if baseline and (spec.optimizer.accumulate > 1 or spec.method.target != "ema"):
        told = f"optimizer.accumulate = {spec.optimizer.accumulate}, method.target = {spec.method.target!r}"
        raise ConfigError([f"{told}: --baseline takes 1 and 'ema'; the official recipe has a target network and no micro-batches"])
    module = lightly.for_step(spec) if peer else None
    setup = assemble(spec, synthetic=synthetic)
    theirs = module.Step(spec) if module else None
    whole = ours(setup)
    jax.block_until_ready(whole())
    memory, memory_from = compiler.memory(whole.compiled, setup.mesh.local_devices[0])
    again = official(setup) if baseline else None
    calls: dict[str, Callable[[], Any]] = {
        "step": whole,
        **({PEER: again} if again else {}),
        **({lightly.NAME: theirs} if theirs else {}),
        AUGMENT: augmentation(setup),
        UPDATE: update(setup),
    }
    times = in_turns(calls, repeats)
    rest = what_is_left(times["step"], times[AUGMENT], times[UPDATE])
    flops = compiler.flops(whole.traced, whole.compiled, setup.mesh.size, spec.optimizer.accumulate)
    facts: dict[str, Any] = {
        "flops": flops,
        "share_of_bf16_peak": compiler.share_of_peak(flops, times["step"].median, list(setup.mesh.devices.flat)),
        "memory": memory,
        "memory_from": memory_from,
    }
    if again:
        facts |= {"baseline_flops": compiler.flops(again.traced, again.compiled, setup.mesh.size)}
        facts |= {"baseline_compiled_memory": _compiled_memory(again), "compiled_memory": _compiled_memory(whole)}
    rows = [Row("step", times["step"], spec.batch_size), Row(AUGMENT, times[AUGMENT]), Row("forward + backward, the rest", rest)]
    peers = ({OFFICIAL: PEER} if again else {}) | ({lightly.NAME: lightly.NAME} if theirs else {})
    rows += [Row(UPDATE, times[UPDATE]), *(Row(name, times[name], spec.batch_size) for name in peers.values())]
    return Result(tuple(rows), peers, facts, (SPLIT, *([theirs.note] if theirs else [])))


def _compiled_memory(program: Program) -> int:
    analysis = program.compiled.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes + analysis.argument_size_in_bytes)


def augment(spec: Spec, *, repeats: int, synthetic: bool, baseline: bool, peer: str | None) -> Result:
    """The device's part of the views, and the step it is a part of."""
    no_peer("augment", baseline, peer)
    if spec.text.preset is not None:
        raise ConfigError([f"bench augment: text.preset = {spec.text.preset!r}: views of texts are made on the host; take bench input"])
    setup = assemble(spec, synthetic=synthetic)
    times = in_turns({AUGMENT: augmentation(setup), "step": ours(setup)}, repeats)
    share = times[AUGMENT].median / times["step"].median
    rows = Row("augment", times[AUGMENT], spec.batch_size), Row("step", times["step"], spec.batch_size)
    return Result(rows, facts={"share_of_step": share})


def encoder(spec: Spec, *, repeats: int, synthetic: bool, baseline: bool, peer: str | None) -> Result:
    """The frozen encoder on a batch of the host's, embeddings back on the host; on real data also with the input that feeds it."""
    no_peer("eval", baseline, peer)
    recipe = build.recipe(spec)
    frozen = evaluate.Encoder.untrained(build.encoder(spec), recipe, seed=spec.seed)
    if synthetic:
        views = noise(spec)
        given = views["image"] if "image" in views else views["view1"]
        times = in_turns({"encoder": lambda: frozen(given, pad_to=spec.batch_size)}, repeats)
        return Result((Row("encoder", times["encoder"], len(given)),))
    source = data.spread(build.labelled_source(spec), 4 * spec.batch_size)
    with data.eval_batches(source, recipe, batch_size=spec.batch_size) as batches:
        given = next(batches)[recipe.content]
    calls: dict[str, Callable[[], Any]] = {
        "encoder": lambda: frozen(given, pad_to=spec.batch_size),
        "features": lambda: jnp.asarray(evaluate.features(frozen, source, batch_size=spec.batch_size).embedding),
    }
    times = in_turns(calls, repeats)
    return Result((Row("encoder", times["encoder"], len(given)), Row("encoder and its input", times["features"], len(source))))


def no_peer(what: str, baseline: bool, peer: str | None) -> None:
    """Raises ConfigError: there is nothing to compare with."""
    if baseline or peer:
        raise ConfigError([f"{'--baseline' if baseline else '--peer'}: bench {what} has no peer; it belongs to step, input"])
