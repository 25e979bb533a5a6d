"""The official networks' names and shapes, and where each leaf stands in our trees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from byol_jax.convert.weights import ConvertError, Tree, encoder_fields

LEAVES = {"w": "kernel", "b": "bias", "scale": "scale", "offset": "bias", "mean_ema": "mean", "var_ema": "var"}
HEAD_LAYERS = {"linear": "linear_0", "batch_norm": "norm_0", "linear_1": "linear_1"}
STEM = "/~/initial_conv"
Modules = Mapping[str, Any]  # module -> name -> array, or shape
Shapes = dict[str, dict[str, tuple[int, ...]]]


def path_of(module: str) -> list[str]:
    """``res_net50/~/block_group_2/~/block_0/~/batchnorm_1`` -> ["encoder", "stage2_block0", "norm_1"]; "classifier" -> ["probe"].

    Raises:
      ConvertError: the official networks have no such module.
    """
    head, *rest = module.replace("/~/", "/").split("/")
    if module == "classifier":
        return ["probe"]
    if head in ("projector", "predictor") and len(rest) == 1 and rest[0] in HEAD_LAYERS:
        return [head, HEAD_LAYERS[rest[0]]]
    layer = re.fullmatch(r"(?:initial|shortcut)_(?:conv|batchnorm)|(?:conv|batchnorm)_\d", rest[-1] if rest else "")
    block = re.fullmatch(r"block_group_(\d+)/block_(\d+)", "/".join(rest[:-1]))
    if not layer or "/~/" not in module or (len(rest) > 1 and not block):
        raise ConvertError(f"module {module}: the official networks have none of this name")
    name = layer[0].replace("initial", "stem").replace("batchnorm", "norm")
    return ["encoder", *([f"stage{block[1]}_block{block[2]}"] if block else []), name]


def put(tree: Tree, path: list[str], value: Any) -> None:
    """Sets the leaf at a path, making the dicts on the way."""
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def params_tree(modules: Modules) -> Tree:
    """{"encoder", "projector", "predictor", "probe"}, as far as they are there, of {module: {name: array}}."""
    tree: Tree = {}
    for module, leaves in modules.items():
        for name, value in leaves.items():
            put(tree, [*path_of(module), LEAVES[name]], value if name == "w" else value.reshape(-1))
    return tree


def stats_tree(modules: Modules) -> Tree:
    """The running averages of {"<norm>/~/mean_ema": {"average": array}} in our tree; the official code evaluates with these."""
    tree: Tree = {}
    for module, leaves in modules.items():
        owner, _, kind = module.rpartition("/~/")
        put(tree, [*path_of(owner), LEAVES[kind]], leaves["average"].reshape(-1))
    return tree


def encoder_of(params: Modules) -> tuple[dict[str, Any], Shapes]:
    """(the ``encoder`` section of a configuration, the shape of every leaf) of the network these parameters belong to.

    Raises:
      ConvertError: they belong to no ResNet of the official code; names the first module that does not fit.
    """
    head = next((module.removesuffix(STEM) for module in params if module.endswith(STEM)), None)
    if head is None:
        found = ", ".join(list(params)[:3]) or "none at all"
        raise ConvertError(f"no module ends in {STEM}: the encoder is no ResNet of the official code (modules: {found} ...)")
    stem = _outputs(params, head + STEM)
    width = max(stem // 64, 1)
    stages: list[int] = []
    while f"{head}/~/block_group_{len(stages)}/~/block_0/~/conv_0" in params:
        blocks = 1
        while f"{head}/~/block_group_{len(stages)}/~/block_{blocks}/~/conv_0" in params:
            blocks += 1
        stages.append(blocks)
    block = "bottleneck" if f"{head}/~/block_group_0/~/block_0/~/conv_2" in params else "basic"
    last = "conv_2" if block == "bottleneck" else "conv_1"
    channels = [max(_outputs(params, f"{head}/~/block_group_{g}/~/block_0/~/{last}") // width, 1) for g in range(len(stages))]
    fields = encoder_fields(stages, channels, block=block, width=width, stem_channels=64)
    shapes = encoder_shapes(head, stages, channels, block, width)
    what = f"{fields['name']} of width {width}"
    check(params, shapes, what, within=f"{head}/")
    return fields, shapes


def _outputs(params: Modules, module: str) -> int:
    leaf = params.get(module, {}).get("w")
    if np.ndim(leaf) != 4:
        raise ConvertError(f"module {module}: is missing, or is no convolution; every encoder of the official code has it")
    return int(leaf.shape[-1])


def encoder_shapes(head: str, stages: list[int], channels: list[int], block: str, width: int) -> Shapes:
    """module -> name -> shape of a ResNet of the official code, from the stem on; ``head`` is the first part of its modules' names."""
    shapes: Shapes = {}

    def conv(at: str, name: str, kernel: int, inputs: int, outputs: int) -> int:
        shapes[f"{head}/~/{at}{name}"] = {"w": (kernel, kernel, inputs, outputs)}
        norm = re.sub(r"conv$", "batchnorm", name).replace("conv_", "batchnorm_")
        shapes[f"{head}/~/{at}{norm}"] = {"scale": (1, 1, 1, outputs), "offset": (1, 1, 1, outputs)}
        return outputs

    inputs = conv("", "initial_conv", 7, 3, 64 * width)
    for group, (blocks, outputs) in enumerate(zip(stages, (c * width for c in channels), strict=True)):
        branch = [(3, outputs), (3, outputs)] if block == "basic" else [(1, outputs // 4), (3, outputs // 4), (1, outputs)]
        for b in range(blocks):
            at, through = f"block_group_{group}/~/block_{b}/~/", inputs
            if b == 0:
                conv(at, "shortcut_conv", 1, inputs, outputs)
            for i, (kernel, size) in enumerate(branch):
                through = conv(at, f"conv_{i}", kernel, through, size)
            inputs = through
    return shapes


def head_shapes(params: Modules, embedding: int) -> Shapes:
    """The same of projector, predictor and classifier, with the widths that their own first weights have."""

    def size(module: str) -> int:
        leaf = params.get(module, {}).get("w")
        if np.ndim(leaf) != 2:
            raise ConvertError(f"module {module}: is missing, or is no linear layer")
        return int(leaf.shape[-1])

    shapes: Shapes = {}
    inputs = embedding
    for head in ("projector", "predictor"):
        hidden, out = size(f"{head}/linear"), size(f"{head}/linear_1")
        shapes[f"{head}/linear"] = {"w": (inputs, hidden), "b": (hidden,)}
        shapes[f"{head}/batch_norm"] = {"scale": (1, hidden), "offset": (1, hidden)}
        shapes[f"{head}/linear_1"] = {"w": (hidden, out)}
        inputs = out
    classes = size("classifier")
    return shapes | {"classifier": {"w": (embedding, classes), "b": (classes,)}}


def stats_shapes(shapes: Shapes) -> Shapes:
    """The running averages that go with these parameters."""
    norms = {module: leaves["scale"] for module, leaves in shapes.items() if "scale" in leaves}
    return {f"{module}/~/{kind}": {"average": shape} for module, shape in norms.items() for kind in ("mean_ema", "var_ema")}


def check(modules: Modules, shapes: Shapes, what: str, *, within: str = "") -> None:
    """Raises ConvertError naming the first module that ``what`` has otherwise, then the first (its name beginning so) it has not."""
    for module, name, shape in _leaves(shapes):
        found = modules.get(module, {}).get(name)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise ConvertError(f"module {module}: has no numbers {name!r}; {what} has some of shape {shape}")
        if found.shape != shape:
            raise ConvertError(f"module {module}: {name} has shape {found.shape}; {what} has {shape}")
    for module in modules:
        if module.startswith(within) and module not in shapes:
            raise ConvertError(f"module {module}: {what} has none of this name")


def _leaves(shapes: Shapes) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    for module, leaves in shapes.items():
        for name, shape in leaves.items():
            yield module, name, shape


def chosen(modules: Modules, shapes: Shapes) -> dict[str, dict[str, np.ndarray]]:
    """The leaves that ``shapes`` lists, as float32."""
    return {module: {name: modules[module][name].astype(np.float32, copy=False) for name in names} for module, names in shapes.items()}
