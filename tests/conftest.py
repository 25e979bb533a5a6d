"""Every test sees eight fake devices, strict dtype promotion and (pyproject.toml) warnings as errors."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import chex
import jax

chex.set_n_cpu_devices(8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
