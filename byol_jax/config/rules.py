"""Which settings go together. Each rule yields (the keys it speaks of, the message); ``resolve`` leaves out those about a key
that is wrong in itself."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from byol_jax import views as recipes
from byol_jax.config import mix, toolkit
from byol_jax.config.check import nearest

if TYPE_CHECKING:
    from byol_jax.config.spec import EncoderSpec, Form

Broken = Iterator[tuple[tuple[str, ...], str]]

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200", "resnet")
VITS = ("vit_s16", "vit_b16")
BERTS = ("bert_tiny", "bert_mini", "bert_small", "bert_medium", "bert_base", "minilm", "transformer", "huggingface")
ENCODERS = (*RESNETS, *VITS, *BERTS)
SOURCES = ("digits", "idx", "npz", "folder", "tfds", "text")
SIZES = ("layers", "hidden", "heads", "mlp")  # of encoder.transformer
OF_RESNETS = ("width", "stem", "zero_init_last_bn", "padding", "shortcut", "norm")  # of encoder
OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")  # my_pkg.mod:Name


def combinations(form: Form) -> Broken:
    """All broken rules, in the order of the keys."""
    own = _length, _data, _on_device, _test_data, _parts, _views, _text, _encoder, _transformer, _method, _optimizer
    for rule in (*own, toolkit.combinations, _mix):
        yield from rule(form)


def is_own(name: str) -> bool:
    """Whether a name stands for an object of the user's: ``my_pkg.mod:Name``."""
    return OWN.fullmatch(name) is not None


def _known(key: str, name: str, choices: tuple[str, ...]) -> Broken:
    if name not in choices and not is_own(name):
        listed = ", ".join(repr(choice) for choice in choices)
        yield (key,), f"{key} = {name!r}: it must be one of {listed}, or your own 'my_pkg.mod:Name'{nearest(name, choices)}"


def _length(form: Form) -> Broken:
    if form.epochs is None and form.steps is None:
        yield ("epochs", "steps"), "epochs = None and steps = None: set exactly one of them"
    if form.epochs is not None and form.steps is not None:
        yield ("steps", "epochs"), f"steps = {form.steps} and epochs = {form.epochs}: set exactly one of them, the other to None"
    n = form.optimizer.accumulate
    if form.batch_size % n:
        fits = " or ".join(str(size) for size in (form.batch_size // n * n, (form.batch_size // n + 1) * n) if size)
        yield (
            ("batch_size", "optimizer.accumulate"),
            f"batch_size = {form.batch_size}: it must be divisible by optimizer.accumulate = {n}; the nearest that are: {fits}",
        )


def _data(form: Form) -> Broken:
    data = form.data
    yield from _known("data.source", data.source, SOURCES)
    if data.source in ("idx", "npz", "folder", "text") and data.path is None:
        what = {"npz": "the .npz file", "text": "the file or folder"}.get(data.source, "the folder")
        yield ("data.path", "data.source"), f"data.path = None: data.source = {data.source!r} needs {what}"
    if data.source == "tfds" and data.name is None:
        yield ("data.name", "data.source"), "data.name = None: data.source = 'tfds' needs the data set's name, such as 'cifar10'"
    if data.source == "digits" and data.path is not None:
        yield ("data.path", "data.source"), f"data.path = {data.path!r}: data.source = 'digits' comes with scikit-learn and reads no path"
    if data.source in SOURCES and data.source != "tfds":
        if data.name is not None:
            yield ("data.name", "data.source"), f"data.name = {data.name!r}: only data.source = 'tfds' has a name"
        if data.in_memory:
            yield ("data.in_memory", "data.source"), "data.in_memory = True: only data.source = 'tfds' has this choice"
    if data.args and data.source in SOURCES:
        yield ("data.args", "data.source"), f"data.args = {data.args!r}: only your own source ('my_pkg.mod:Name') takes arguments"


def _on_device(form: Form) -> Broken:
    """A source of the user's may be in memory or not: that shows when it is opened."""
    data = form.data
    if not data.on_device:
        return
    if data.source == "folder":
        text = (
            "images of a folder are decoded as they are needed; leave it False, or save them as arrays of one size for data.source = 'npz'"
        )
        yield ("data.on_device", "data.source"), f"data.on_device = True: {text}"
    if data.source == "tfds" and not data.in_memory:
        text = "data.source = 'tfds' needs data.in_memory = True for it, and images of one size"
        yield ("data.on_device", "data.in_memory", "data.source"), f"data.on_device = True: {text}"
    if data.augment_on != "device":
        text = f"images that stay there are augmented there, and data.augment_on = {data.augment_on!r}"
        near = "it must be 'device', or data.on_device = False"
        yield ("data.on_device", "data.augment_on", "views.function"), f"data.on_device = True: {text}: {near}"


def _test_data(form: Form) -> Broken:
    data = form.data
    files = ("folder", "text")
    if data.source in files and data.test_split is not None and (data.test_path is not None or "[" not in data.test_split):
        near = "or are a part of data.path: data.test_split = 'train[90%:]' and no data.test_path"
        what = "a folder's test images" if data.source == "folder" else "test texts"
        yield (("data.test_split", "data.source"), f"data.test_split = {data.test_split!r}: {what} stand in data.test_path, {near}")
    if data.source in SOURCES and data.source not in files and data.test_path is not None:
        yield (
            ("data.test_path", "data.source"),
            f"data.test_path = {data.test_path!r}: only a folder, or files of texts, have one; set data.test_split",
        )


def _parts(form: Form) -> Broken:
    """TFDS reads its own parts, and so does a source of the user's."""
    data = form.data
    for name in ("split", "labelled_split", "test_split") if data.source in SOURCES and data.source != "tfds" else ():
        if "[" in (split := getattr(data, name) or "") or "]" in split:
            from byol_jax.data import parse_split

            try:
                parse_split(split)
            except ValueError as error:
                yield (f"data.{name}",), f"data.{name}: {error}"


def _mix(form: Form) -> Broken:
    """Each part must be what ``data`` itself may be."""
    for number, written in enumerate(form.data.mix):
        part, errors = mix.read_part(written, number)
        yield from (((key,), message) for key, message in errors.items())
        alone = dataclasses.replace(form, data=mix.data_of(form.data, part))
        for rule in () if errors else (_data, _on_device, _parts, _text):
            for keys, message in rule(alone):
                yield (f"data.mix[{number}]: {message}", *keys), f"data.mix[{number}]: {message}"


def _views(form: Form) -> Broken:
    preset, function = form.views.preset, form.views.function
    if preset not in recipes.PRESETS:
        listed = ", ".join(repr(choice) for choice in recipes.PRESETS)
        yield ("views.preset",), f"views.preset = {preset!r}: it must be one of {listed}{nearest(preset, recipes.PRESETS)}"
    if function is not None and not is_own(function):
        yield ("views.function",), f"views.function = {function!r}: it must be None or your own 'my_pkg.mod:name'"
    elif function is not None and form.data.augment_on != "host":
        yield (
            ("data.augment_on", "views.function"),
            f"data.augment_on = {form.data.augment_on!r}: {function!r} runs in tf.data and needs augment_on = 'host'",
        )


def _text(form: Form) -> Broken:
    text, data = form.text, form.data
    if text.preset is None:
        if data.source == "text":
            yield ("text.preset", "data.source"), "text.preset = None: data.source = 'text' needs 'sentence' or 'document'"
        return
    if text.preset not in recipes.TEXT_PRESETS:
        listed = ", ".join(repr(choice) for choice in recipes.TEXT_PRESETS)
        yield ("text.preset",), f"text.preset = {text.preset!r}: it must be one of {listed}{nearest(text.preset, recipes.TEXT_PRESETS)}"
    if data.source in SOURCES and data.source not in ("text", "tfds"):
        yield ("data.source", "text.preset"), f"data.source = {data.source!r}: texts come from 'text' or 'tfds', or your own source"
    if text.tokenizer is None and form.encoder.name != "huggingface":
        text_of = "a tokenizer.json; `byol-jax data tokenizer --config FILE.py --output tokenizer.json` learns one from the training texts"
        yield ("text.tokenizer", "text.preset"), f"text.tokenizer = None: texts need {text_of}"
    if form.encoder.name in (*RESNETS, *VITS):
        yield ("encoder.name", "text.preset"), f"encoder.name = {form.encoder.name!r}: an encoder of texts is one of {', '.join(BERTS)}"
    for key, value in (("on_device", data.on_device), ("in_memory", data.in_memory)):
        if value:
            yield (f"data.{key}", "text.preset"), f"data.{key} = True: texts are held on the host as token ids; leave it False"


def _transformer(form: Form) -> Broken:
    encoder, own = form.encoder, form.encoder.transformer
    if encoder.name in BERTS and form.text.preset is None:
        yield (
            ("encoder.name", "text.preset"),
            f"encoder.name = {encoder.name!r}: it reads texts; set text.preset to 'sentence' or 'document'",
        )
    for name in SIZES:
        value = getattr(own, name)
        key = f"encoder.transformer.{name}"
        if encoder.name == "transformer" and value is None:
            yield (key, "encoder.name"), f"{key} = None: encoder.name = 'transformer' needs {', '.join(SIZES)}"
        elif encoder.name != "transformer" and value is not None:
            near = "that is fixed by the name; use encoder.name = 'transformer' for your own"
            yield (key, "encoder.name"), f"{key} = {value!r} with encoder.name = {encoder.name!r}: {near}"
    if own.head_width is not None and encoder.name != "transformer":
        text = f"encoder.transformer.head_width = {own.head_width} with encoder.name = {encoder.name!r}"
        yield ("encoder.transformer.head_width", "encoder.name"), f"{text}: only 'transformer' has heads of a width of its own"
    if encoder.name == "transformer" and own.hidden and own.heads and own.head_width is None and own.hidden % own.heads:
        yield (
            ("encoder.transformer.hidden", "encoder.transformer.heads"),
            f"encoder.transformer.hidden = {own.hidden}: it must be divisible by encoder.transformer.heads = {own.heads}",
        )
    if (encoder.path is None) == (encoder.name == "huggingface"):
        needs = "encoder.name = 'huggingface' needs the folder with config.json and model.safetensors"
        other = f"only encoder.name = 'huggingface' reads one, not {encoder.name!r}"
        yield ("encoder.path", "encoder.name"), f"encoder.path = {encoder.path!r}: {needs if encoder.path is None else other}"
    if form.text.preset is not None and form.text.length and form.text.length > own.positions and encoder.name != "huggingface":
        yield (
            ("text.length", "encoder.transformer.positions"),
            f"text.length = {form.text.length}: it must be at most encoder.transformer.positions = {own.positions}",
        )


def _encoder(form: Form) -> Broken:
    encoder = form.encoder
    if encoder.name not in ENCODERS:
        yield from _known("encoder.name", encoder.name, (*RESNETS, *VITS) if form.text.preset is None else BERTS)
    parts = {name: getattr(encoder, name) for name in ("block", "stages", "channels", "stem_channels")}
    for name, value in parts.items():
        if encoder.name == "resnet" and value is None and name != "stem_channels":
            yield (f"encoder.{name}", "encoder.name"), f"encoder.{name} = None: encoder.name = 'resnet' needs block, stages and channels"
        elif encoder.name in ENCODERS and encoder.name != "resnet" and value is not None:
            near = "that is fixed by the name; use encoder.name = 'resnet' for your own"
            yield (f"encoder.{name}", "encoder.name"), f"encoder.{name} = {value!r} with encoder.name = {encoder.name!r}: {near}"
    if encoder.name == "resnet" and encoder.stages and encoder.channels and len(encoder.stages) != len(encoder.channels):
        yield (
            ("encoder.channels", "encoder.stages"),
            f"encoder.channels = {encoder.channels}: it must have one entry for each of encoder.stages = {encoder.stages}",
        )
    if encoder.norm == "group" and encoder.channels and any(_inner(encoder, channels) % 16 for channels in encoder.channels):
        share = "a multiple of 64 (16 groups of the inner quarter)" if encoder.block == "bottleneck" else "a multiple of 16, the groups"
        yield (
            ("encoder.channels", "encoder.norm"),
            f"encoder.channels = {encoder.channels} with encoder.norm = 'group': each must be {share}",
        )
    if encoder.args and encoder.name in ENCODERS:
        yield (
            ("encoder.args", "encoder.name"),
            f"encoder.args = {encoder.args!r}: only your own encoder ('my_pkg.mod:Name') takes arguments",
        )
    ignored = OF_RESNETS if encoder.name in (*VITS, *BERTS) else ()
    for name in (*OF_RESNETS, *parts, "dtype", "drop_path", "remat") if is_own(encoder.name) else ignored:
        value, default = getattr(encoder, name), type(encoder).__dataclass_fields__[name].default
        if value != default:
            near = f"only a ResNet has it, encoder.name = {encoder.name!r} has not; leave it {default!r}"
            given = f"your own encoder {encoder.name!r} is given encoder.args alone; put it there"
            yield (f"encoder.{name}", "encoder.name"), f"encoder.{name} = {value!r}: {given if is_own(encoder.name) else near}"


def _inner(encoder: EncoderSpec, channels: int) -> int:
    """The fewest channels that a stage normalises."""
    return encoder.width * (channels // 4 if encoder.block == "bottleneck" else channels)


def _method(form: Form) -> Broken:
    projector, predictor = form.method.projector, form.method.predictor
    if projector.layers < 1:
        yield (
            ("method.projector.layers",),
            "method.projector.layers = 0: a projector has at least 1 linear layer; only a predictor can be left out",
        )
    for name, head in (("projector", projector), ("predictor", predictor)):
        if head.norm == "group" and head.layers > 1 and head.hidden % 16:
            near = f"the nearest valid is {max(round(head.hidden / 16), 1) * 16}"
            yield (
                (f"method.{name}.hidden", f"method.{name}.norm"),
                f"method.{name}.hidden = {head.hidden}: with norm = 'group' a multiple of 16; {near}",
            )
    if form.method.beta and (form.method.loss != "regression" or form.method.normalization != "l2"):
        yield (
            ("method.beta", "method.loss", "method.normalization"),
            f"method.beta = {form.method.beta}: negatives need method.loss = 'regression' and method.normalization = 'l2'",
        )
    if form.method.normalization != "l2" and form.method.loss != "regression":
        yield (
            ("method.normalization", "method.loss"),
            f"method.normalization = {form.method.normalization!r}: your own loss {form.method.loss!r} normalises as it likes; leave 'l2'",
        )
    if projector.out != predictor.out:
        yield (
            ("method.predictor.out", "method.projector.out"),
            f"method.predictor.out = {predictor.out}: it must equal method.projector.out = {projector.out}, which it predicts",
        )
    if form.method.loss != "regression" and not is_own(form.method.loss):
        near = nearest(form.method.loss, ["regression"])
        yield ("method.loss",), f"method.loss = {form.method.loss!r}: it must be 'regression' or your own 'my_pkg.mod:name'{near}"


def _optimizer(form: Form) -> Broken:
    optimizer = form.optimizer
    if optimizer.warmup_steps is not None and optimizer.warmup_epochs is not None:
        both = f"optimizer.warmup_steps = {optimizer.warmup_steps} and optimizer.warmup_epochs = {optimizer.warmup_epochs}"
        yield ("optimizer.warmup_steps", "optimizer.warmup_epochs"), f"{both}: set at most one of them, the other to None"
    for unit in ("epochs", "steps"):
        warmup, total = getattr(optimizer, f"warmup_{unit}"), getattr(form, unit)
        if warmup and total is not None and warmup >= total:
            yield (
                (f"optimizer.warmup_{unit}", unit),
                f"optimizer.warmup_{unit} = {warmup}: the warm-up must be shorter than the run, {unit} = {total}",
            )
