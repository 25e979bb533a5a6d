"""What a configuration amounts to: parameter table, batch shapes, steps. Nothing is trained, nothing is allocated on a device."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

import jax

from byol_jax.augment import kind_of
from byol_jax.build import methods, objects
from byol_jax.config import ConfigError, Spec, flat
from byol_jax.config.mix import parts
from byol_jax.data import InMemory
from byol_jax.data.prepared import prepared_length
from byol_jax.method import Outputs
from byol_jax.models.forms import as_jax_has_it
from byol_jax.train.resident import bytes_per_device


def describe(spec: Spec) -> str:
    """The resolved configuration, and what it makes: plain text, in seconds also for the largest network.

    Raises:
      ConfigError, ValueError: the model cannot be built, or the run would have no step.
    """
    examples, classes, where = look_at_data(spec)
    return "\n\n".join([config_text(spec), parameter_text(spec, classes), batch_text(spec), length_text(spec, examples, where)])


def look_at_data(spec: Spec) -> tuple[int | None, objects.Classes, str]:
    """(examples, classes, a word on the data); examples is None where the data is not on this machine. Never downloads."""
    wanted = [one for _, one in parts(spec.data)] or [spec.data]
    lengths = {one.name: prepared_length(str(one.name), one.split, one.path) for one in wanted if one.source == "tfds"}
    missing = [str(name) for name, length in lengths.items() if length is None]
    if missing:
        return None, 0, f"{', '.join(missing)}, not prepared on this machine: lengths in epochs stay open"
    if lengths and not spec.data.mix:
        length = lengths[spec.data.name]
        return length, 0, f"{length:,} examples"
    try:
        source = objects.train_source(spec)
    except ConfigError:
        raise
    except ValueError as error:
        return None, 0, f"not there: {error}"
    classes = objects.num_classes(source) if spec.method.probe else 0
    text = f"{len(source):,} examples" + (f", {classes_text(classes)}" if classes else "")
    return len(source), classes, text + (where_images_stand(source) if spec.data.on_device else "")


def classes_text(classes: objects.Classes) -> str:
    """Such as "10 classes"; of several label sets "10 classes of kind, 2 classes of sold"."""
    return f"{classes} classes" if isinstance(classes, int) else ", ".join(f"{n} classes of {name}" for name, n in classes.items())


def where_images_stand(source: Any) -> str:
    """What resident data takes on each device, were the run made on this machine."""
    if not isinstance(source, InMemory):
        return "; not in memory as one array, which data.on_device needs"
    devices = jax.device_count()
    size = bytes_per_device(len(source.stored), source.stored.images.shape[1:], devices)
    return f"; {size:,} bytes on each of {devices} device(s)"


def config_text(spec: Spec) -> str:
    """Every key and its value, in sections."""
    sections: dict[str, list[str]] = {}
    for key, value in flat(spec).items():
        section, _, name = key.rpartition(".") if key.count(".") == 0 else key.partition(".")
        sections.setdefault(section, []).append(f"{name} = {tuple(value) if isinstance(value, list) else value!r}")
    lines = ["Configuration"]
    for section, entries in sections.items():
        lines += [f"  {section}"] * bool(section) + [("    " if section else "  ") + entry for entry in entries]
    return "\n".join(lines)


def shapes(spec: Spec) -> tuple[Outputs, Any]:
    """(shapes of the outputs for one example, shapes of the variables) of the online network."""
    network, recipe = methods.byol(spec).network(), objects.recipe(spec)
    with as_jax_has_it():  # all forms have these shapes
        return jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x, False), kind_of(recipe).seen(recipe))


def parameter_text(spec: Spec, classes: objects.Classes) -> str:
    """The online network's parameters by module, the blocks of a stage together; the target network, if any, has the same again."""
    out, variables = shapes(spec)
    counts: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        names = [entry.key for entry in path]
        module = "/".join(names[: 2 if names[0] == "encoder" else 1])
        module = re.sub(r"_block\d+$", "", module)
        counts[module] = counts.get(module, 0) + math.prod(leaf.shape)
    parts = {module: counts[module] for module in sorted(counts, key=_from_stem_to_head)}
    parts["encoder, all of it"] = sum(count for module, count in counts.items() if module.startswith("encoder"))
    parts["online network"] = sum(counts.values())
    width = out.embedding.shape[-1]
    if classes:
        outputs = classes if isinstance(classes, int) else sum(classes.values())
        parts[f"probe ({classes_text(classes)})"] = (width + 1) * outputs
    target = "the target network holds as many again" if spec.method.target == "ema" else "there is no target network"
    if spec.method.teacher.workdir is not None:
        target = f"the target is the teacher in {spec.method.teacher.workdir}"
    return "\n".join(
        [
            f"Parameters ({target})",
            *table((module, f"{count:,}") for module, count in parts.items()),
            f"  embedding: {width} numbers an example",
        ]
    )


def _from_stem_to_head(module: str) -> tuple[bool, bool, bool, str]:
    return not module.startswith("encoder"), "stem" not in module, module == "predictor", module


def table(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns, the second set to the right."""
    kept = list(rows)
    left, right = (max(len(row[i]) for row in kept) for i in (0, 1))
    return [f"  {a:<{left}}  {b:>{right}}" for a, b in kept]


def batch_text(spec: Spec) -> str:
    """What comes from the host in a step, and what the network sees."""
    b, recipe = spec.batch_size, objects.recipe(spec)
    seen = kind_of(recipe).seen(recipe)
    s = ", ".join(map(str, seen.shape[1:]))
    if spec.data.on_device:
        host = f"index int32[{b}]; images and labels stand on the devices, and both crops are cut there"
    elif spec.views.function is not None:
        host = f"view1, view2: as views.function gives them, label int32[{b}]"
    elif objects.crops_on_device(spec):
        host = f"image uint8[{b}, H, W, 3] as stored; both crops are cut on the device, label int32[{b}]"
    else:
        host = f"view1, view2 {kind_of(recipe).sent(recipe).dtype}[{b}, {s}], label int32[{b}]"
    lines = ["Batch", f"  from the host: {host}", f"  in the network: 2 views, {seen.dtype}[2, {b}, {s}]"]
    if spec.optimizer.accumulate > 1:
        lines.append(f"  in {spec.optimizer.accumulate} micro-batches of {b // spec.optimizer.accumulate}")
    return "\n".join(lines)


def length_text(spec: Spec, examples: int | None, where: str) -> str:
    """Steps an epoch and in all, as far as they are known."""
    lines = ["Length", f"  data: {where}"]
    if examples is not None:
        lines.append(f"  steps per epoch: {examples / spec.batch_size:.1f}")
    if examples is not None or spec.steps is not None:
        lines.append(f"  steps in all: {objects.steps(spec, examples or 0):,}")
    if examples is not None:
        lines.append(f"  of these warm-up: {objects.warmup_steps(spec, examples):,}")
    peak = spec.optimizer.learning_rate * spec.batch_size / 256
    lines.append(f"  learning rate: {spec.optimizer.name}, {spec.optimizer.learning_rate:g} for 256 examples, {peak:g} at its peak")
    return "\n".join(lines)
