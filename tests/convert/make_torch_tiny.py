"""Makes tests/golden/torch_resnet_tiny.npz with PyTorch: two small ResNets of torchvision's blocks, images, and their embeddings.

    python tests/convert/make_torch_tiny.py

Weights and statistics are random, so that no layer is the identity; embeddings are computed in float64 and kept as float32.
"basic": stem 7x7 / 2 with a pool, two stages of (2, 1) basic blocks; "bottleneck": stem 3x3, two stages of (1, 2) bottlenecks and fc.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_resnet_tiny.npz"


def build(block: str):
    import torch
    from torch import nn
    from torchvision.models import resnet

    make, sizes = {"basic": (resnet.BasicBlock, (2, 1)), "bottleneck": (resnet.Bottleneck, (1, 2))}[block]
    net = resnet.ResNet(make, [1, 1, 1, 1])
    net.inplanes = 4
    net.conv1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False) if block == "basic" else nn.Conv2d(3, 4, 3, 1, 1, bias=False)
    net.bn1 = nn.BatchNorm2d(4)
    net.maxpool = net.maxpool if block == "basic" else nn.Identity()
    net.layer1, net.layer2 = net._make_layer(make, 4, sizes[0]), net._make_layer(make, 8, sizes[1], stride=2)
    net.layer3 = net.layer4 = net.fc = nn.Identity()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(0.5 + torch.rand(tensor.shape))
            elif tensor.ndim:
                tensor.copy_(torch.randn(tensor.shape) / (max(tensor[0].numel(), 1) ** 0.5 if tensor.ndim > 1 else 3) + (tensor.ndim == 1))
    return net.double().eval()


def main() -> None:
    import torch

    arrays: dict[str, np.ndarray] = {}
    for block in ("basic", "bottleneck"):
        net = build(block)
        arrays |= {f"{block}/weights/{name}": t.numpy().astype(np.float32) for name, t in net.state_dict().items() if t.ndim}
        for side in (16, 17):
            images = np.random.default_rng(side).normal(size=(2, side, side, 3)).astype(np.float32)
            with torch.no_grad():
                out = net(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
            arrays |= {f"{block}/{side}/images": images, f"{block}/{side}/embedding": out.numpy().astype(np.float32)}
    rng = np.random.default_rng(5)
    arrays |= {
        "bottleneck/weights/fc.weight": rng.normal(size=(3, 32)).astype(np.float32),
        "bottleneck/weights/fc.bias": np.ones(3, np.float32),
    }
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
