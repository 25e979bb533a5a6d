"""Makes tests/golden/torch_vit_tiny.npz with timm's VisionTransformer, set up as MoCo v3 does: weights, images, and their class tokens.

    python tests/models/make_vit_tiny.py

Two layers of 16 features and 4 heads, patches of 4 x 4. Weights are random, none at its default, but for the patch projection (MoCo v3's
uniform bound, bias 0) and the positions (its table); computed in float64 and kept as float32.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_vit_tiny.npz"
PATCH, HIDDEN, SIDE = 4, 16, 12


def table(side: int, hidden: int) -> Any:
    """For a square of patches, the class token first, at zero; torch's meshgrid runs over its first argument slowly."""
    import torch

    places = torch.arange(side, dtype=torch.float64)
    slow, fast = torch.meshgrid(places, places, indexing="ij")
    omega = 1.0 / 10000.0 ** (torch.arange(hidden // 4, dtype=torch.float64) / (hidden // 4))
    slow, fast = torch.outer(slow.flatten(), omega), torch.outer(fast.flatten(), omega)
    positions = torch.cat([slow.sin(), slow.cos(), fast.sin(), fast.cos()], dim=1)
    return torch.cat([torch.zeros(1, hidden), positions])[None]


def build() -> Any:
    import torch
    from timm.models.vision_transformer import VisionTransformer

    options = {"depth": 2, "num_heads": 4, "mlp_ratio": 4, "qkv_bias": True, "num_classes": 0, "global_pool": "token"}
    net = VisionTransformer(SIDE, PATCH, embed_dim=HIDDEN, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), **options).double()
    torch.manual_seed(0)
    bound = math.sqrt(6 / (3 * PATCH * PATCH + HIDDEN))
    pixels = np.random.RandomState(0).uniform(-bound, bound, (PATCH, PATCH, 3, HIDDEN)).astype(np.float32)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            tensor.copy_(torch.randn(tensor.shape) * 0.3 + float(tensor.ndim == 1 and name.endswith("weight")))
        net.patch_embed.proj.weight.copy_(torch.from_numpy(pixels.transpose(3, 2, 0, 1)))
        net.patch_embed.proj.bias.zero_()
        net.pos_embed.copy_(table(SIDE // PATCH, HIDDEN))
    return net.eval()


def main() -> None:
    import torch

    net = build()
    images = np.random.default_rng(0).normal(size=(3, SIDE, SIDE, 3)).astype(np.float32)
    with torch.no_grad():
        embedding = net(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
    weights = {f"weights/{name}": tensor.numpy().astype(np.float32) for name, tensor in net.state_dict().items()}
    np.savez_compressed(GOLDEN, images=images, embedding=embedding.numpy().astype(np.float32), **weights)


if __name__ == "__main__":
    main()
