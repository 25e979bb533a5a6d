"""What a working directory says of itself: the configuration of its run, and where a converted one came from."""

from __future__ import annotations

import os

from byol_jax.build import texts
from byol_jax.config import ConfigError, Spec, from_json
from byol_jax.workdir import folder

CONFIG, ORIGIN = "config.json", "origin.json"
ENCODER_ALONE, WHOLE = "an encoder alone", "a whole run"  # what origin.json says that it holds


def read_spec(workdir: str | os.PathLike[str]) -> Spec:
    """The configuration of the run in a working directory. Raises ConfigError where there is none."""
    file = folder(workdir) / CONFIG
    if not file.is_file():
        raise ConfigError([f"--workdir {workdir}: there is no run in it (no {CONFIG}); `byol-jax pretrain --config FILE.py` makes one"])
    return texts.with_kept_files(workdir, from_json(file.read_text(encoding="utf-8")))
