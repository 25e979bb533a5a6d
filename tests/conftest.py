"""Every test sees eight fake devices, strict dtype promotion and (pyproject.toml) warnings as errors."""

import gc
import os
from pathlib import Path

from tests import quick

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick.FLAGS}"  # the golden steps compile as users do

import chex
import jax

# Tracing makes millions of small objects and hardly a cycle; at Python's threshold of 700 it looks for cycles all the time.
gc.set_threshold(200_000, 20, 20)
chex.set_n_cpu_devices(8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Many tests compile the same programs, some in several processes: that was most of the suite's time.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
