"""The package's front door: each public name loads, and a wrong one is answered with the right ones."""

from __future__ import annotations

import pytest

import byol_jax as byol


@pytest.mark.parametrize("name", byol.__all__)
def test_public_name_loads(name: str) -> None:
    thing = getattr(byol, name)
    assert thing.__doc__, f"{name} has no docstring"


def test_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Boyl'; it has .*Byol"):
        byol.Boyl  # noqa: B018
