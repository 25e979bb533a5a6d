"""Config files and command-line overrides: ``configs/imagenet.py:e300`` and ``--config.key=value``."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from byol_jax.config.check import ConfigError, leaves, nearest, nearest_key, parse
from byol_jax.config.spec import Form, Spec
from byol_jax.config.tree import resolve, to_config_dict

Overrides = Iterable[tuple[str, str]]  # (dotted key, text)


def load(name: str, overrides: Overrides = ()) -> Spec:
    """The Spec of a config file.

    Args:
      name: ``path/to/file.py`` or ``path/to/file.py:variant``; the file defines ``get_config(variant=None) -> ConfigDict``.
      overrides: (dotted key, text) pairs, applied in order.
    Raises:
      ConfigError: a missing or broken file, an unknown variant, or all errors in keys and values.
    """
    return _resolve(config_file(name), overrides)


def override(spec: Spec, overrides: Overrides) -> Spec:
    """The Spec with some keys changed, checked as a whole again."""
    return _resolve(to_config_dict(spec), overrides)


def _resolve(config: ConfigDict, overrides: Overrides) -> Spec:
    errors: dict[str, str] = {}
    types = dict(leaves(Form))
    for key, text in overrides:
        if key not in types:
            errors[key] = f"{key} = {text}: there is no such key{nearest_key(key, Form)}"
            if any(known.startswith(f"{key}.") for known in types):
                errors[key] = f"{key} = {text}: this is a section; set one of its keys, as in --config.{_first(types, key)}=..."
            continue
        _put(config, key, parse(text, types[key]))
    return resolve(config, also=errors)


def _first(types: Iterable[str], section: str) -> str:
    return next(key for key in types if key.startswith(f"{section}."))


def _put(config: ConfigDict, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        if not isinstance(config.get(section), ConfigDict):
            config[section] = ConfigDict(type_safe=False)
        config = config[section]
    if last in config:
        del config[last]  # a placeholder would check the type here, and one error would hide the others
    config[last] = value


def config_file(name: str) -> ConfigDict:
    """What a config file returns, unchecked. Raises ConfigError."""
    path, _, variant = name.partition(":") if not Path(name).is_file() else (name, "", "")
    if not Path(path).is_file():
        folder = Path(path).parent
        there = sorted(str(file) for file in folder.glob("*.py")) if folder.is_dir() else []
        raise ConfigError([f"--config {name}: there is no file {path}{nearest(path, there)}"])
    try:
        get_config = runpy.run_path(path).get("get_config")
        if not callable(get_config):
            raise ConfigError([f"--config {name}: {path} defines no function get_config(variant=None)"])
        config = get_config(variant or None)
    except ConfigError:
        raise
    except Exception as error:  # the file is the user's program: whatever it raises is an error in the configuration
        raise ConfigError([f"--config {name}: {_where(error, path)}{type(error).__name__}: {error}"]) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError([f"--config {name}: get_config returned {type(config).__name__}; it must return a ConfigDict"])
    return config


def look_beside() -> None:
    """Lets imports find what stands in the current folder, after all else. The console script, unlike `python -m`, does not look there."""
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.append(here)


def _where(error: Exception, path: str) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"line {lines[-1]}: " if lines else ""


def unknown_variant(variant: str, variants: Iterable[str]) -> ConfigError:
    """The error a config file raises for a variant that it does not have."""
    known = list(variants)
    listed = f"it must be one of {', '.join(known)}{nearest(variant, known)}" if known else "this file has no variants"
    return ConfigError([f"variant {variant!r}: {listed}"])
