"""Every test sees eight fake devices, strict dtype promotion and (pyproject.toml) warnings as errors."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
# Most of what a test compiles runs once: unoptimised it is ready a quarter sooner. test_golden_resnet.py compiles as users do.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import chex
import jax

chex.set_n_cpu_devices(8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Many tests compile the same programs, some in several processes: that was most of the suite's time.
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
