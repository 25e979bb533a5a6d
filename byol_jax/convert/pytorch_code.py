"""The code that makes torchvision's ResNet ready for weights of ours: what docs/checkpoints.md shows by cases, for one network."""

from __future__ import annotations

from byol_jax.convert.layers import Net

PAD_AS_SAME = '''

def pad_as_same(layer, inputs):
    """What does not divide evenly goes right and below."""
    kernel, stride = (n if isinstance(n, int) else n[0] for n in (layer.kernel_size, layer.stride))
    total = [max(kernel - (n % stride or stride), 0) for n in (inputs[0].shape[3], inputs[0].shape[2])]
    fill = float("-inf") if isinstance(layer, nn.MaxPool2d) else 0.0
    return nn.functional.pad(inputs[0], [part for t in total for part in (t // 2, t - t // 2)], value=fill)


for layer in net.modules():
    if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
        layer.padding = 0
        layer.register_forward_pre_hook(pad_as_same)
'''.strip("\n")
USUAL = {"basic": (64, 128, 256, 512), "bottleneck": (256, 512, 1024, 2048)}


def pytorch_code(net: Net, padding: str, file: str) -> str | None:
    """Python that builds the network as ``net`` and loads ``file`` strictly; None where torchvision's class has too few stages for it."""
    if len(net.stages) > 4:
        return None
    lines = ["import torch", "import torchvision", "from safetensors.torch import load_file", "from torch import nn", ""]
    lines += [f"block = torchvision.models.resnet.{'BasicBlock' if net.block == 'basic' else 'Bottleneck'}"]
    usual = (net.channels, net.stem_channels) == (USUAL[net.block], 64)
    lines += [f"net = torchvision.models.ResNet(block, {list(net.stages)})"] if usual else _other_widths(net)
    lines.append("net.fc = nn.Identity()")
    stem, out = net.stem_channels, net.channels[0]
    if net.stem == "small":
        lines += [f"net.conv1 = nn.Conv2d(3, {stem}, 3, padding=1, bias=False)", "net.maxpool = nn.Identity()"]
    if net.shortcut == "first" and stem == out:
        lines.append(f"net.layer1[0].downsample = nn.Sequential(nn.Conv2d({stem}, {out}, 1, bias=False), nn.BatchNorm2d({out}))")
    if padding == "same":
        lines += ["", "", PAD_AS_SAME]
    return "\n".join([*lines, f'net.load_state_dict(load_file("{file}"), strict=True)', "net.eval()"])


def _other_widths(net: Net) -> list[str]:
    """torchvision's own builder, stage by stage; stages that ours lacks pass through."""
    stem, expansion = net.stem_channels, 1 if net.block == "basic" else 4
    lines = ["net = torchvision.models.ResNet(block, [1, 1, 1, 1])", f"net.inplanes = {stem}"]
    lines.append(f"net.conv1, net.bn1 = nn.Conv2d(3, {stem}, 7, 2, 3, bias=False), nn.BatchNorm2d({stem})")
    for i, (size, channels) in enumerate(zip(net.stages, net.channels, strict=True), 1):
        stride = "" if i == 1 else ", stride=2"
        lines.append(f"net.layer{i} = net._make_layer(block, {channels // expansion}, {size}{stride})")
    return lines + [f"net.layer{i} = nn.Identity()" for i in range(len(net.stages) + 1, 5)]
