"""lightly, BYOL in PyTorch, as a peer: what of a configuration it can do, and the way to it. No torch is imported before it is measured."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType

from byol_jax.build import objects
from byol_jax.config import ConfigError, Spec, flat
from byol_jax.config.check import nearest

NAME, CROPS = "lightly", "lightly, crops alone"
NETWORKS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SOURCES = ("folder", "npz", "idx", "digits")
# What lightly's modules and torchvision's ResNets have no other choice of.
ONLY: dict[str, object] = {
    "text.preset": None,
    "views.function": None,
    "encoder.width": 1,
    "encoder.norm": "batch",
    "encoder.remat": False,
    "method.projector.layers": 2,
    "method.projector.norm": "batch",
    "method.predictor.layers": 2,
    "method.predictor.norm": "batch",
    "method.loss": "regression",
    "method.normalization": "l2",
    "method.beta": 0.0,
    "method.target": "ema",
    "method.adversary.radius": 0.0,
    "method.denoise.share": 0.0,
    "method.denoise.bounded": 0.0,
    "method.teacher.workdir": None,
    "optimizer.accumulate": 1,
}


def for_step(spec: Spec) -> ModuleType:
    """``lightly_step``; JAX then takes of a GPU's memory what it needs, unless the user has chosen, and not three quarters at once.

    To be called before JAX's first use of a device, and before anything imports TensorFlow.

    Raises:
      ConfigError: everything that lightly's step would do otherwise than the configuration says; or the extra is not installed.
    """
    name, found = spec.encoder.name, flat(spec)
    faults = []
    if name not in NETWORKS:
        near = nearest(name, NETWORKS)
        faults = [f"encoder.name = {name!r}: --peer lightly takes torchvision's {', '.join(NETWORKS)}{near}"]
    faults += [f"{key} = {found[key]!r}: --peer lightly takes {value!r} alone" for key, value in ONLY.items() if found[key] != value]
    if faults:
        raise ConfigError(faults)
    module = _needed("step")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return module


def for_input(spec: Spec) -> ModuleType:
    """``lightly_input``. To be called before anything imports TensorFlow.

    Raises:
      ConfigError: what lightly's input cannot read, and which views it cannot make; or the extra is not installed.
    """
    faults = []
    if spec.data.source not in SOURCES:
        near = nearest(spec.data.source, SOURCES)
        faults = [f"data.source = {spec.data.source!r}: --peer lightly reads image files or arrays, that is {', '.join(SOURCES)}{near}"]
    if spec.views.function is not None:
        faults += [f"views.function = {spec.views.function!r}: --peer lightly takes None alone"]
    for name in ("view1", "view2"):
        view = getattr(spec.views, name)
        only = {"crop_area": (view.crop_area[0], 1.0), "crop_ratio": (3 / 4, 4 / 3), "solarize_threshold": 0.5}
        wrong = {key: value for key, value in only.items() if getattr(view, key) != value}
        faults += [f"views.{name}.{key} = {getattr(view, key)}: --peer lightly takes {value} alone" for key, value in wrong.items()]
    if faults:
        raise ConfigError(faults)
    return _needed("input")


def input_note(spec: Spec) -> str:
    """What each side does, in words."""
    theirs = "lightly's views are finished on the host, by a process a core, in float32"
    if spec.data.augment_on == "host":
        return f"{theirs}; so are ours."
    ours = "sends whole images" if objects.crops_on_device(spec) else "cuts and resizes the crops"
    return (
        f"{theirs}; ours {ours}, in uint8, and the device does the rest. {CROPS.capitalize()}: nothing but RandomResizedCrop and ToTensor."
    )


def _needed(part: str) -> ModuleType:
    absent = [name for name in ("torch", "torchvision", "lightly") if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError([f"--peer lightly: needs {', '.join(absent)}, not installed here: pip install 'byol-jax[lightly]'"])
    # Triton, which torchvision loads, crashes the process when TensorFlow is in it already.
    if "tensorflow" in sys.modules and "triton" not in sys.modules:
        raise ConfigError(["--peer lightly: TensorFlow was imported already, and torch must come before it; take a new process"])
    # Where other work takes a core away, torch's threads wait for one another, and would spin meanwhile: a step of 1.0 s took 5.9 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return importlib.import_module(f"byol_jax.bench.lightly_{part}")
