"""Weights out: our encoder as a file of another house."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.convert.layers import Net, to_torch
from byol_jax.convert.state_dict import needed
from byol_jax.convert.weights import ConvertError
from byol_jax.models import ResNet
from byol_jax.views import Views


def to_safetensors(path: str | Path, module: Any, variables: Any, *, views: Views, source: dict[str, Any]) -> list[Path]:
    """Writes a ResNet under torchvision's names, and beside it what its user must know, in ``.preprocess.json`` and in the header.

    Args:
      path: ends in ``.safetensors``; replaced where it is there.
      module, variables: the encoder, with "params" and "batch_stats".
      views: how images are prepared for it.
      source: where it came from, as JSON.

    Returns:
      the two files.

    Raises:
      ConvertError: not a ResNet of ours with batch norms, another ending, or the package safetensors is missing.
    """
    path = Path(path)
    if not isinstance(module, ResNet):
        raise ConvertError(f"{type(module).__name__}: only a ResNet has torchvision's names; take another format")
    if module.norm != "batch":
        raise ConvertError(f"encoder.norm = {module.norm!r}: torchvision's ResNets have batch norms; take another format")
    if path.suffix != ".safetensors":
        raise ConvertError(f"{path}: the file's name must end in .safetensors")
    save_file = needed("safetensors.numpy", "safetensors", path).save_file
    net = Net.of(module)
    tensors = to_torch(net, variables)
    counters = {key.replace("running_mean", "num_batches_tracked"): np.zeros((), np.int64) for key in tensors if "running_mean" in key}
    facts = facts_of(net, module.padding, views, source)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file(tensors | counters, partial, metadata={"format": "pt", "byol_jax": json.dumps(facts)})
    partial.replace(path)
    return [path, write_facts(path, facts)]


def write_facts(path: Path, facts: dict[str, Any]) -> Path:
    """``x.preprocess.json`` beside the weights ``x.anything``; returns its path."""
    sidecar = path.with_suffix(".preprocess.json")
    sidecar.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return sidecar


def facts_of(net: Net, padding: str, views: Views, source: dict[str, Any]) -> dict[str, Any]:
    """What weights alone do not say, as JSON."""
    architecture = {"block": net.block, "stages": list(net.stages), "channels": list(net.channels), "stem_channels": net.stem_channels}
    architecture |= {"stem": net.stem, "shortcut": net.shortcut, "padding": padding}
    return {**architecture, **prepared(views), "loads": loads(net, padding), "source": source}


def prepared(views: Views) -> dict[str, Any]:
    """How an image is prepared, as JSON: numbers, and the order in a sentence."""
    order = (
        "images of exactly size x size as they are; of others the central square of eval_crop x the shorter side, "
        "resized to size (bicubic with a = -0.5, not antialiased); RGB / 255, minus mean, over std"
    )
    return {"size": views.size, "eval_crop": views.eval_crop, "mean": list(views.mean), "std": list(views.std), "order": order}


def loads(net: Net, padding: str) -> list[str]:
    """What PyTorch's user must do before ``load_state_dict(strict=True)``, a sentence each; see docs/checkpoints.md."""
    stages = (64, 128, 256, 512) if net.block == "basic" else (256, 512, 1024, 2048)
    steps = ["replace fc by nn.Identity(): there is no classifier in the file"]
    if (net.stem_channels, net.channels) != (64, stages):
        text = f"this one has {net.stem_channels} channels in the stem and {list(net.channels)} in its stages"
        steps.append(f"build a ResNet of these widths: torchvision's have 64 and {list(stages)}, {text}")
    if net.stem == "small":
        steps.append("replace conv1 by one of 3x3, stride 1, padding 1, and maxpool by nn.Identity()")
    if net.shortcut == "first" and net.channels[0] == net.stem_channels:
        steps.append("give layer1[0] a downsample of a 1x1 convolution and a batch norm")
    if padding == "same":
        steps.append("make every strided layer pad as SAME does: what does not divide evenly goes right and below")
    return steps
