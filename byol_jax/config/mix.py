"""The parts of ``data.mix``: each is ``data`` with some keys of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

from byol_jax.config.check import read
from byol_jax.config.spec import DataSpec, PartSpec

OF_THE_MIX = ("weight", "labels")


def read_part(part: dict[str, Any], number: int) -> tuple[PartSpec, dict[str, str]]:
    """(a part as a config file writes it, key -> what is wrong in it)."""
    errors: dict[str, str] = {}
    return read(PartSpec, part, errors, path=f"data.mix[{number}]."), errors


def parts(data: DataSpec) -> tuple[tuple[PartSpec, DataSpec], ...]:
    """The parts, and what each means on its own; of checked data."""
    read_parts = [read_part(part, number)[0] for number, part in enumerate(data.mix)]
    return tuple((part, data_of(data, part)) for part in read_parts)


def data_of(data: DataSpec, part: PartSpec) -> DataSpec:
    """A part as if it were all of the data."""
    own = {name: value for name, value in vars(part).items() if value is not None and name not in OF_THE_MIX}
    return dataclasses.replace(data, mix=(), labelled_split=None, test_split=None, test_path=None, **own)
