"""The configuration: ``default() -> ConfigDict``, changed by a config file, checked by ``resolve -> Spec``. Neither jax nor TensorFlow."""

from byol_jax.config.check import ConfigError
from byol_jax.config.file import config_file, load, override, unknown_variant
from byol_jax.config.spec import Form, Spec
from byol_jax.config.tree import default, differences, digest, flat, from_json, resolve, to_config_dict, to_json

__all__ = [
    "ConfigError",
    "Form",
    "Spec",
    "config_file",
    "default",
    "differences",
    "digest",
    "flat",
    "from_json",
    "load",
    "override",
    "resolve",
    "to_config_dict",
    "to_json",
    "unknown_variant",
]
