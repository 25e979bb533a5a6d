"""Smaller encoders: fewer channels, weights that are 0, numbers of 8 bits. Pure functions over modules and their variables."""

from byol_jax.compress.channels import narrower
from byol_jax.compress.int8 import fake_int8, floating, is_int8, loaded, quantized
from byol_jax.compress.plan import Plan
from byol_jax.compress.sparse import cubic, masked, masks, sparse
from byol_jax.compress.units import fewer_units

__all__ = [
    "Plan",
    "cubic",
    "fake_int8",
    "fewer_units",
    "floating",
    "is_int8",
    "loaded",
    "masked",
    "masks",
    "narrower",
    "quantized",
    "sparse",
]
