"""Packaging of byol_jax. Tools are configured in pyproject.toml; exact versions for development and CI in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "byol_jax" / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)

CORE = [
    "absl-py",
    "chex>=0.1.90",
    "etils[epath]>=1.12",
    "flax>=0.12",
    "jax>=0.10",
    "jinja2>=3.1",
    "matplotlib>=3.9",
    "ml-collections>=1.1",
    "numpy>=2.0",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.11.30",
    "pillow>=11",
    "rich>=13",
    "scikit-learn>=1.5",
    "scipy>=1.13",
]
DATA = [
    "array-record>=0.8; platform_system == 'Linux'",
    "importlib-resources>=6",  # tensorflow-datasets imports it, and does not say so
    "tensorflow-datasets>=4.9.9",
]
TENSORBOARD = ["tensorboardX>=2.6"]
WANDB = ["wandb>=0.19"]
SAFETENSORS = ["safetensors>=0.5"]
PARQUET = ["pyarrow>=17"]
SEARCH = ["optuna>=4"]
INDEX = ["usearch>=2.16"]
SERVE = ["fastapi>=0.115", "prometheus-client>=0.20", "python-multipart>=0.0.20", "uvicorn>=0.30"]
COMPRESS = ["qwix>=0.1.8"]
TEXT = ["tokenizers>=0.21", *SAFETENSORS]
TEST = ["httpx>=0.27", "hypothesis>=6.100", "mypy>=1.15", "pytest>=8", "pytest-xdist>=3.6", "ruff>=0.12"]

setup(
    name="byol-jax",
    version=VERSION[1],
    description="Bootstrap Your Own Latent in JAX and Flax, for GPU and TPU",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["byol_jax", "byol_jax.*"]),
    package_data={"byol_jax": ["report/*.html", "convert/*.md", "serve/*.html"]},
    install_requires=[*CORE, *DATA, "tensorflow-cpu>=2.20; platform_system == 'Linux'", "tensorflow>=2.20; platform_system != 'Linux'"],
    extras_require={
        "cuda13": ["jax[cuda13]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "tpu-plan": ["jax[tpu]>=0.10"],  # its compiler plans for pods on any Linux machine, with no TPU in it
        "gcs": ["google-cloud-storage>=2.10"],  # orbax imports it for gs://, and does not say so
        "tensorboard": TENSORBOARD,
        "wandb": WANDB,
        "safetensors": SAFETENSORS,
        "text": TEXT,
        "index": INDEX,  # experiments/faq_search, experiments/recommend
        "torch": ["torch>=2.6", *SAFETENSORS],  # before, a file of weights could run code: CVE-2025-32434
        "lightly": ["lightly>=1.5", "torch>=2.4", "torchvision>=0.19"],  # the peer of `byol-jax bench --peer lightly`
        "parquet": PARQUET,
        "onnx": ["jax2onnx>=0.17", "onnxruntime>=1.24"],
        "search": SEARCH,
        "serve": SERVE,
        "compress": COMPRESS,
        "dev": [*TEST, *TENSORBOARD, *WANDB, *SAFETENSORS, *PARQUET, *SEARCH, *TEXT, *INDEX, *SERVE, *COMPRESS],
    },
    entry_points={"console_scripts": ["byol-jax = byol_jax.cli:main"]},
)
