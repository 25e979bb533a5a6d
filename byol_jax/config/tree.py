"""ConfigDict -> Spec and back: every key, all errors at once, and what two runs differ in."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict, config_dict

from byol_jax import views as recipes
from byol_jax.config.check import ConfigError, hints, leaves, read
from byol_jax.config.rules import combinations
from byol_jax.config.spec import Form, Spec, TextForm, TextSpec, ViewsForm, ViewsSpec

# A run may go on with other values of these; all else shapes the trained state.
_FREE_DATA = ("path", "test_path", "test_split", "labelled_split", "in_memory", "on_device", "max_bad_share")
# Of the files that text.tokenizer and encoder.path name a run keeps copies, which are compared instead (``build.runs.claim``).
_FREE_FILES = ("text.tokenizer", "text.cache", "encoder.path", "method.teacher.workdir")
_FREE_ROOMS = ("checkpoint", "evaluation", "logging", "encoder.remat", "optimizer.shard_state")
FREE_TO_CHANGE = (*_FREE_ROOMS, *_FREE_FILES, *(f"data.{key}" for key in _FREE_DATA))
# No result of a study depends on these.
_ASIDE_DATA = ("data.in_memory", "data.on_device", "data.max_bad_share")
_ASIDE = ("checkpoint", "logging", "encoder.remat", "optimizer.shard_state", "text.cache", *_ASIDE_DATA)


def default() -> ConfigDict:
    """Every key at the paper's value. Not locked and not type-safe, so that ``resolve`` can report all mistakes at once."""
    return ConfigDict(_plain(Form()), type_safe=False)


def resolve(config: ConfigDict | Mapping[str, Any], also: Mapping[str, str] | None = None) -> Spec:
    """Checks the whole configuration and fills in what the views' preset says.

    Args:
      config: any part of what ``default()`` holds; a missing key takes its default.
      also: key -> message of errors already found (in the command line's overrides), reported with the others.
    Raises:
      ConfigError: with all errors.
    """
    errors = dict(also or {})
    form = read(Form, config.to_dict() if isinstance(config, ConfigDict) else config, errors)
    for keys, message in combinations(form):
        if not any(key in errors for key in keys):
            errors[keys[0]] = message
    views, text = _views(form.views), _text(form.text)
    errors |= {f"views.{fault}": f"views.{fault}" for fault in views.errors()}
    errors |= {f"text.{name}.{fault}": f"text.{name}.{fault}" for name in ("view1", "view2") for fault in getattr(text, name).errors()}
    if errors:
        raise ConfigError(list(errors.values()))
    return Spec(**{name: getattr(form, name) for name in hints(Form)} | {"views": views, "text": text})


def _views(form: ViewsForm) -> ViewsSpec:
    preset = recipes.PRESETS.get(form.preset, recipes.imagenet)(form.size)  # an unknown one is an error already noted
    values = {
        name: getattr(preset, name) if getattr(form, name) is None else getattr(form, name) for name in ("size", "eval_crop", "mean", "std")
    }
    values |= {name: _changed(getattr(preset, name), getattr(form, name)) for name in ("view1", "view2")}
    return ViewsSpec(**values, preset=form.preset, function=form.function)


def _text(form: TextForm) -> TextSpec:
    preset = recipes.TEXT_PRESETS.get(form.preset or "", recipes.TextViews)()
    kept = {name: getattr(form, name) for name in hints(TextForm) if name not in ("length", "view1", "view2")}
    length = preset.length if form.length is None else form.length
    return TextSpec(**kept, length=length, **{name: _changed(getattr(preset, name), getattr(form, name)) for name in ("view1", "view2")})


def _changed(view: Any, changes: Any) -> Any:
    """A preset's view with what a config file sets in it."""
    return dataclasses.replace(view, **{key: value for key, value in vars(changes).items() if value is not None})


def to_config_dict(spec: Spec) -> ConfigDict:
    """The way back: ``resolve(to_config_dict(spec)) == spec``, also through JSON."""
    return ConfigDict(_plain(spec), type_safe=False)


def _plain(node: Any) -> dict[str, Any]:
    """Nested dicts of plain values; a value that may be None becomes a placeholder, which ConfigDict can override."""
    values: dict[str, Any] = {}
    for name in hints(node.__class__):
        value = getattr(node, name)
        if dataclasses.is_dataclass(value):
            values[name] = _plain(value)
        elif value is None:
            values[name] = config_dict.placeholder(object)
        else:
            values[name] = value
    return values


def to_json(spec: Spec) -> str:
    """The resolved configuration as the ``config.json`` of a working directory."""
    return json.dumps(to_config_dict(spec).to_dict(), indent=2) + "\n"


def from_json(text: str) -> Spec:
    """Raises ConfigError for a file that this version cannot read."""
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError([f"config.json is not JSON: {error}"]) from None
    return resolve(tree)


def digest(spec: Spec) -> str:
    """Twelve hex digits that change whenever a value does that shapes the trained state (not logging, evaluation and the like)."""
    kept = {key: value for key, value in flat(spec).items() if not is_free(key)}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def flat(spec: Spec) -> dict[str, Any]:
    """Dotted key -> value; tuples as lists, as JSON has them."""
    found: dict[str, Any] = {}
    for key, _ in leaves(Spec):
        value = functools.reduce(getattr, key.split("."), spec)
        found[key] = list(value) if isinstance(value, tuple) else value
    return found


def is_free(key: str) -> bool:
    """Whether a run may go on with another value of this key."""
    return _within(key, FREE_TO_CHANGE)


def _within(key: str, names: Sequence[str]) -> bool:
    """Whether the key or its room is among them."""
    return key in names or key.partition(".")[0] in names


def differences(old: Spec, new: Spec) -> list[str]:
    """``key: old there, new here`` for every value that shapes the trained state."""
    a, b = flat(old), flat(new)
    keys = [key for key in a if not is_free(key) and a[key] != b[key]]
    return [f"{key}: {a[key]!r} there, {b[key]!r} here" for key in keys]


def measured(spec: Spec) -> dict[str, Any]:
    """Dotted key -> value, as JSON has it, of what is not at its default and decides a result: a row of a study is told apart by it.

    Values and no digest, so that a difference has a name and a key that comes with a later version makes none.
    """
    base = flat(Spec())
    where = ("data.path",) if spec.data.source == "tfds" else ()  # its name says which images, the path only where they lie
    kept = {key: value for key, value in flat(spec).items() if value != base[key] and not _within(key, (*_ASIDE, *where))}
    return dict(json.loads(json.dumps(kept)))


def measured_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``key: old there, new here`` for what ``measured`` told of two configurations."""
    base = flat(Spec())
    a, b = ({key: told.get(key, base.get(key)) for key in {**old, **new}} for told in (old, new))
    return [f"{key}: {a[key]!r} there, {b[key]!r} here" for key in a if a[key] != b[key]]
