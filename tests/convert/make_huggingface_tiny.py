"""Makes tests/golden/huggingface_tiny.npz with transformers' PyTorch: a tiny BERT and a tiny RoBERTa, ids, and their hidden states.

    python tests/convert/make_huggingface_tiny.py

Weights are random, none at its default; hidden states are computed in float64 and kept as float32. Of each family: "config" (JSON),
"weights/NAME", "ids" (int32[3, 9], padded on the right; the last row of BERT's has padding inside), "hidden", "mean" (of the real tokens).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden" / "huggingface_tiny.npz"
SIZES = {"vocab_size": 40, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32}


def build(family: str) -> Any:
    import torch
    import transformers

    if family == "bert":
        net = transformers.BertModel(transformers.BertConfig(**SIZES, max_position_embeddings=12))
    else:
        more = {"max_position_embeddings": 14, "type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5, "hidden_act": "gelu_new"}
        net = transformers.RobertaModel(transformers.RobertaConfig(**SIZES, **more))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            tensor.copy_(torch.randn(tensor.shape) * (0.3 if tensor.ndim > 1 else 0.2) + float("LayerNorm.weight" in name))
    return net.double().eval()


def ids(pad: int) -> np.ndarray:
    drawn = np.random.default_rng(0).integers(4, 40, (3, 9)).astype(np.int32)
    drawn[1, 5:] = pad
    drawn[2, 2 if pad == 0 else 8] = pad
    return drawn


def main() -> None:
    import torch

    arrays: dict[str, Any] = {}
    for family, pad in (("bert", 0), ("roberta", 1)):
        net, tokens = build(family), ids(pad)
        mask = torch.from_numpy(tokens != pad)
        with torch.no_grad():
            hidden = net(torch.from_numpy(tokens).long(), attention_mask=mask.long()).last_hidden_state
            mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        arrays |= {f"{family}/weights/{name}": tensor.numpy().astype(np.float32) for name, tensor in net.state_dict().items()}
        arrays |= {f"{family}/config": json.dumps(net.config.to_diff_dict()), f"{family}/ids": tokens}
        arrays |= {f"{family}/hidden": hidden.numpy().astype(np.float32), f"{family}/mean": mean.numpy().astype(np.float32)}
    np.savez_compressed(GOLDEN, **arrays)


if __name__ == "__main__":
    main()
