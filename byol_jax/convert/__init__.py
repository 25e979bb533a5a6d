"""Weights in: a checkpoint of another code is read into ``Weights``. Pure functions from a file to arrays; nothing is executed."""

from byol_jax.convert.weights import ConvertError, Training, Weights, encoder_fields

__all__ = ["ConvertError", "Training", "Weights", "encoder_fields"]
