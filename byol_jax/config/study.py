"""The file of a study: it defines SWEEP, points to run one by one, or SEARCH, a space that Optuna searches."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from byol_jax.config import search, sweep
from byol_jax.config.check import ConfigError, nearest
from byol_jax.config.file import look_beside
from byol_jax.config.search import Search
from byol_jax.config.sweep import Sweep

KINDS: dict[str, type] = {"SWEEP": Sweep, "SEARCH": Search}


def load_study(name: str) -> tuple[Sweep | Search, str, Path]:
    """The study in ``path/to/sweep.py[:scale]``; a sweep's scale (the first one by default), "" for a search; and the file's folder.

    Raises ConfigError for a missing file, an unknown scale, and everything that is wrong in the study: all at once.
    """
    path, _, wanted = name.partition(":") if not Path(name).is_file() else (name, "", "")
    if not Path(path).is_file():
        there = sorted(str(file) for kind in ("sweep", "search") for file in Path(path).parent.parent.glob(f"*/{kind}.py"))
        raise ConfigError([f"{name}: there is no file {path}{nearest(path, there)}"])
    study = _defined(path)
    if isinstance(study, Search):
        if wanted:
            raise ConfigError([f"{name}: a search has no scales; leave :{wanted} out"])
        search.check(study)
        return study, "", Path(path).parent
    scale = wanted or next(iter(study.scales))
    if scale not in study.scales:
        raise ConfigError([f"{name}: scale {scale!r} must be one of {', '.join(study.scales)}{nearest(scale, list(study.scales))}"])
    sweep.check(study)
    return study, scale, Path(path).parent


def _defined(path: str) -> Any:
    """The study a file defines. It is the user's program: whatever it raises is an error in it."""
    look_beside()  # it may import what stands beside the configs
    try:
        names = runpy.run_path(path)
    except Exception as error:
        raise ConfigError([f"{path}: {type(error).__name__}: {error}"]) from error
    found = [names[name] for name, kind in KINDS.items() if isinstance(names.get(name), kind)]
    if len(found) != 1:
        text = "both SWEEP and SEARCH; a folder has one page" if found else "no SWEEP = Sweep(...) and no SEARCH = Search(...)"
        raise ConfigError([f"{path}: defines {text}"])
    return found[0]
