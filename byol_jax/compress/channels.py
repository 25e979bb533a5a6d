"""Structured pruning of a ResNet: whole channels go, and what is left is an ordinary ResNet with fewer of them.

What is added together must go together (as the shortcuts of arXiv 1608.08710, section 3.3): the channels of a stage's stream are one
group, whose members are every convolution that writes to it; the channels inside a block are a group of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from byol_jax.compress.plan import Path, Plan, at, how_many, strongest
from byol_jax.models import ResNet

NORM = (("params", "scale"), ("params", "bias"), ("batch_stats", "mean"), ("batch_stats", "var"))


class Layer(NamedTuple):
    """A convolution and its norm, with the groups of channels that it reads and writes; the image's are group ""."""

    conv: Path
    norm: Path
    reads: str
    writes: str


def layers(module: ResNet) -> Iterator[Layer]:
    """All convolutions, in the order in which they run."""
    yield Layer(("stem_conv",), ("stem_norm",), "", "stem")
    last = 1 if module.block == "basic" else 2
    stream, width = "stem", module.stem_channels
    for s, (size, channels) in enumerate(zip(module.stage_sizes, module.channels, strict=True)):
        for b in range(size):
            block = f"stage{s}_block{b}"
            project = b == 0 and (module.shortcut == "first" or s > 0 or width != channels)
            out, reads = f"stage{s}" if project else stream, stream
            for i in range(last + 1):
                writes = out if i == last else f"{block}/{i}"
                yield Layer((block, f"conv_{i}"), (block, f"norm_{i}"), reads, writes)
                reads = writes
            if project:
                yield Layer((block, "shortcut_conv"), (block, "shortcut_norm"), stream, out)
            stream, width = out, channels


def narrower(module: ResNet, variables: Mapping[str, Any], share: float) -> Plan:
    """Which channels of every group go: those whose ``strength``, summed over all convolutions that write to them, is least.

    Args:
      module: with batch norms.
      variables: its {"params", "batch_stats"}.
      share: of the channels of every group, rounded to what a block of the house can have. A 7x7 stem keeps its channels where it can:
        a CPU took twice as long for 32 of them as for 64, and it has few weights.

    Raises:
      ValueError: other norms, whose channels share their statistics.
    """
    if module.norm != "batch":
        raise ValueError(
            f"encoder.norm = {module.norm!r}: its channels share statistics, so that none can be taken out; it must be 'batch'"
        )
    scores: dict[str, np.ndarray] = {}
    for layer in layers(module):
        scores[layer.writes] = scores.get(layer.writes, np.float32(0)) + strength(variables, layer.norm)
    streams = _streams(module)
    spared = {"stem"} - set(streams) if module.stem == "imagenet" else set()
    inner = 4 if module.block == "bottleneck" else 1  # a stage has so many times the channels inside its blocks
    kept = {}
    for name, score in scores.items():
        times = inner if "/" in name else 1
        count = (
            len(score)
            if name in spared
            else how_many(len(score) * times, share, inner if name != "stem" or "stem" in streams else 1) // times
        )
        kept[name] = strongest(score, count)
    cuts: dict[Path, dict[int, np.ndarray]] = {}
    for layer in layers(module):
        cuts["params", *layer.conv, "kernel"] = {3: kept[layer.writes]} | ({2: kept[layer.reads]} if layer.reads else {})
        cuts |= {(kind, *layer.norm, leaf): {0: kept[layer.writes]} for kind, leaf in NORM}
    fields = {"width": 1, "stem_channels": len(kept["stem"]), "channels": tuple(len(kept[name]) for name in streams)}
    return Plan(cuts, fields, kept[streams[-1]])


def strength(variables: Mapping[str, Any], norm: Path) -> np.ndarray:
    """What a norm gives out on average, [C]: the root mean square of each channel, by its scale, bias and running statistics.

    Behind a batch norm the size of a filter says nothing, since it is divided out again: the scale has taken its place (network slimming,
    arXiv 1708.06519). A channel that a zero filter, or a zero scale and bias, keeps at 0 has strength 0.
    """
    scale, bias, _, var = (at(variables, (kind, *norm, leaf)) for kind, leaf in NORM)
    return np.sqrt(np.square(scale) * var / (var + 1e-5) + np.square(bias))


def _streams(module: ResNet) -> list[str]:
    """The group that each stage ends in."""
    ends = {layer.conv[0].split("_")[0]: layer.writes for layer in layers(module) if "/" not in layer.writes}
    return [ends[f"stage{s}"] for s in range(len(module.channels))]
