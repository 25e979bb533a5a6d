"""ResNets from PyTorch: state dicts with torchvision's or timm's names, alone or inside what self-supervised libraries save.

Where the ResNet stands is found, not looked up: every prefix below which its layers are (``module.encoder_q.``, ``state_dict.backbone.``,
``classy_state_dict.base_model.model.trunk._feature_blocks.`` ...), also as an ``nn.Sequential`` of its children (``backbone.0``,
``backbone.4.0.conv1``). A prefix that names a momentum, target or teacher network is passed over: the online one is what BYOL keeps.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax import views
from byol_jax.convert.layers import Net, expected, from_torch
from byol_jax.convert.state_dict import load
from byol_jax.convert.weights import ConvertError, Weights

ROOT = re.compile(r"(?P<prefix>(?:.*\.)?)layer1\.0\.conv1\.weight")
SEQUENCE = re.compile(r"(?P<prefix>(?:.*\.)?)\d+\.0\.conv1\.weight")
SLOW = re.compile(r"(^|[._])(momentum|ema|target|teacher|encoder_k|key)([._]|$)")
WRAPPERS = {"state_dict", "model", "module"}  # below these alone, fc is a classifier; elsewhere a projection
HEADS = {"fc", "linear", "head", "heads", "classifier", "projector", "projection_head", "prototypes", "predictor", "neck", "mlp", "queue"}
Tensors = dict[str, np.ndarray]


def read(path: str | Path, *, prefix: str | None = None) -> Weights:
    """The ResNet of a PyTorch file.

    Args:
      path: ``.safetensors``, or ``.pth``, ``.pt``, ``.ckpt``, ``.tar``, ``.bin`` (these need torch; loaded with ``weights_only=True``).
      prefix: of the network to take, such as "momentum_encoder." ("" where nothing stands before its layers); None finds the online one.

    Raises:
      ConvertError: the file cannot be read, holds no ResNet or several, or one that ours cannot be: names what stands in the way.
    """
    tensors, header = load(path)
    try:
        taken, others = _choose(tensors, prefix)
        inside = tuple(root for root in others if root.startswith(taken))  # below "" stand all the others too
        found, left = _split(_below({key: value for key, value in tensors.items() if not key.startswith(inside)}, taken))
        net = _net({key: value.shape for key, value in found.items()})
        classifier = _classifier(taken, left)
        origin = {"format": "torch", "kind": "an encoder", "file": Path(path).name, "prefix": taken, "passed_over": others}
        return _weights(net, found, classifier, _facts(header), origin | {"left_out": sorted(left)})
    except ConvertError as error:
        raise ConvertError(f"{path}: {error}") from None


def _weights(net: Net, found: Tensors, classifier: Tensors | None, ours: dict[str, Any], origin: dict[str, Any]) -> Weights:
    """``ours`` is what the header of a file of ours says; of others, PyTorch's padding and ImageNet's preprocessing are assumed."""
    encoder = net.spec() | {"padding": ours.get("padding", "symmetric")}
    small = net.stem == "small"
    recipe = views.image(32) if small else views.imagenet(224)
    preprocess = {key: ours.get(key, getattr(recipe, key)) for key in ("size", "eval_crop", "mean", "std")}
    preprocess |= {key: tuple(preprocess[key]) for key in ("mean", "std")}
    origin["assumed"] = [] if ours else [*_assumed(net), f"images of {recipe.size} px, normalised by ImageNet's mean and std"]
    origin |= {"source": ours["source"], "step": ours["source"].get("step", 0)} if "source" in ours else {}
    return Weights(encoder, from_torch(net, found), classifier, preprocess, origin)


def _facts(header: Mapping[str, str]) -> dict[str, Any]:
    """What our export wrote beside the weights; nothing for other files."""
    try:
        return dict(json.loads(header.get("byol_jax", "{}")))
    except (ValueError, TypeError) as error:
        raise ConvertError(f"the header's byol_jax is not JSON as our export writes it: {error}") from None


def _assumed(net: Net) -> list[str]:
    """What shapes do not show."""
    texts = ["PyTorch's padding: half a kernel on each side", "batch norms with eps 1e-5, and ReLU after each but a block's last"]
    if net.block == "bottleneck":
        texts.append("the stride of a bottleneck in its 3x3 convolution, as torchvision has it; not in the first 1x1 (Caffe style)")
    if net.stem == "small":
        texts.append("a stem of stride 1 that pads by 1, and no pool after it; solo-learn's for CIFAR pads by 2, which ours cannot be")
    return texts


# Which network of the file.


def _choose(tensors: Tensors, prefix: str | None) -> tuple[str, list[str]]:
    """(prefix of the network to take, those passed over)."""
    named, numbered = _roots(tensors)
    roots = named or numbered
    if prefix is not None and (taken := _by_hand(tensors, prefix, named + numbered)) is not None:
        return taken, [root for root in named + numbered if root != taken]
    if not roots:
        near = _near("layer1.0.conv1.weight", tensors)
        raise ConvertError(f"there is no ResNet in it: no key ends in 'layer1.0.conv1.weight'{near}; it has {_some(tensors)}")
    if prefix is not None:
        near = _near(f"{prefix.rstrip('.')}.", named + numbered)
        raise ConvertError(f"--prefix {prefix!r}: there is no ResNet below it{near}; there are: {_some(named + numbered, 99)}")
    online = [root for root in roots if not SLOW.search(root)]
    if not online:
        raise ConvertError(f"it holds momentum or target networks alone; choose one by --prefix: {_some(roots, 99)}")
    if any(not _same(_below(tensors, online[0]), _below(tensors, root)) for root in online[1:]):
        raise ConvertError(f"it holds several networks; choose one by --prefix: {_some(online, 99)}")
    return online[0], [root for root in roots if root != online[0]]


def _roots(tensors: Tensors) -> tuple[list[str], list[str]]:
    """The prefixes below which the layers of a ResNet stand: by name, and as a Sequential's by number; the shortest first."""
    named = {match["prefix"] for key in tensors if (match := ROOT.fullmatch(key))}
    numbered = {m["prefix"] for key in tensors if (m := SEQUENCE.fullmatch(key)) and f"{m['prefix']}0.weight" in tensors}
    by_name, by_number = (sorted(roots, key=lambda root: (len(root), root)) for roots in (named, numbered))
    return by_name, by_number


def _by_hand(tensors: Tensors, prefix: str, roots: list[str]) -> str | None:
    """The prefix, given with or without its last point, where layers stand below it; also within a name: ``q_`` of ``q_layer1.0.conv1``."""
    candidates = (prefix, f"{prefix}.")
    return next((text for text in candidates if text in roots or f"{text}layer1.0.conv1.weight" in tensors), None)


def _same(a: Tensors, b: Tensors) -> bool:
    layers = [key for key in a if not _is_head(key)]
    return all(key in b and np.array_equal(a[key], b[key]) for key in layers)


def _below(tensors: Tensors, prefix: str) -> Tensors:
    """What stands below a prefix, with torchvision's names."""
    below = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    if "conv1.weight" not in below and "0.weight" in below:
        below = _unrolled(below)
    renamed = {key.replace(".shortcut.", ".downsample."): value for key, value in below.items()}
    return {key: value for key, value in renamed.items() if not key.endswith("num_batches_tracked")}


def _unrolled(below: Tensors) -> Tensors:
    """nn.Sequential(conv1, bn1, relu[, maxpool], layer1, ...) by number -> by name."""
    stages = sorted({int(match[1]) for key in below if (match := re.match(r"(\d+)\.0\.conv1\.weight", key))})
    if stages[0] == 2:
        raise ConvertError(
            "a Sequential whose layer1 follows bn1 at once: the ReLU between them was lost when it was made, and ours has one"
        )
    names = {"0": "conv1", "1": "bn1"} | {str(number): f"layer{s}" for s, number in enumerate(stages, 1)}
    parts = ((key.partition("."), value) for key, value in below.items())
    return {f"{names.get(head, head)}.{rest}": value for (head, _, rest), value in parts}


def _is_head(key: str) -> bool:
    return key.partition(".")[0].removesuffix("_ptr") in HEADS


def _split(below: Tensors) -> tuple[Tensors, Tensors]:
    """(the layers, heads that stand beside them)."""
    return ({k: v for k, v in below.items() if not _is_head(k)}, {k: v for k, v in below.items() if _is_head(k)})


def _classifier(prefix: str, left: Tensors) -> Tensors | None:
    """fc as a linear classifier; takes it out of ``left``."""
    heads = {key for key in left if key.startswith("fc.")}
    if heads != {"fc.weight", "fc.bias"} or not set(filter(None, prefix.split("."))) <= WRAPPERS:
        return None
    return {"kernel": np.ascontiguousarray(left.pop("fc.weight").T), "bias": left.pop("fc.bias")}


# Which ResNet it is.


def _net(shapes: Mapping[str, tuple[int, ...]]) -> Net:
    """The ResNet with exactly these shapes. Raises ConvertError with what is too much, missing or of another shape."""
    blocks: dict[int, set[int]] = {}
    for key in shapes:
        if match := re.match(r"layer(\d+)\.(\d+)\.", key):
            blocks.setdefault(int(match[1]), set()).add(int(match[2]))
    block = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    last = "conv3" if block == "bottleneck" else "conv2"
    stem = shapes.get("conv1.weight", ())
    out = [shapes.get(f"layer{s}.0.{last}.weight", ()) for s in range(1, len(blocks) + 1)]
    if not all(len(shape) == 4 for shape in [stem, *out]):
        raise ConvertError(f"not torchvision's ResNet: it lacks conv1.weight or a layer's {last}.weight; it has {_some(shapes)}")
    if stem[2:] not in ((7, 7), (3, 3)):
        raise ConvertError(f"conv1.weight {list(stem)}: ours are 7x7 with stride 2, or 3x3 with stride 1")
    _refuse_other_widths(shapes, block, out[0][0])
    shortcut = "first" if "layer1.0.downsample.0.weight" in shapes else "shape"
    stages, channels = tuple(len(blocks[s]) for s in sorted(blocks)), tuple(shape[0] for shape in out)
    net = Net(block, stages, channels, stem[0], "imagenet" if stem[2] == 7 else "small", shortcut)
    _compare(shapes, expected(net))
    return net


def _refuse_other_widths(shapes: Mapping[str, tuple[int, ...]], block: str, out: int) -> None:
    inner, second = shapes["layer1.0.conv1.weight"][:1], shapes.get("layer1.0.conv2.weight", ())
    if len(second) == 4 and second[1:2] != inner:
        raise ConvertError(
            f"layer1.0.conv2.weight {list(second)} after {inner[0]} channels: grouped convolutions (ResNeXt), ours have none"
        )
    if block == "bottleneck" and inner != (out // 4,):
        text = f"layer1.0.conv1.weight has {inner[0]} channels inside a block of {out}, not {out} / 4 = {out // 4}"
        raise ConvertError(f"{text}; a wide ResNet as wide_resnet50_2 widens its inner convolutions alone, our encoder.width every layer")


def _compare(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    unknown, missing = [key for key in found if key not in wanted], [key for key in wanted if key not in found]
    wrong = [key for key in wanted if key in found and found[key] != wanted[key]]
    faults = [f"unknown: {_some([f'{key}{_near(key, missing or wanted)}' for key in unknown])}"] if unknown else []
    faults += [f"missing: {_some(missing)}"] if missing else []
    faults += [f"of another shape: {_some([f'{key} {list(found[key])}, not {list(wanted[key])}' for key in wrong])}"] if wrong else []
    if faults:
        raise ConvertError(f"not a ResNet that ours can be; keys {'; '.join(faults)}")


def _near(word: str, choices: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (nearest: {found[0]!r})" if found else ""


def _some(texts: Iterable[str], most: int = 3) -> str:
    listed = list(texts)
    return ", ".join(text or "''" for text in listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
