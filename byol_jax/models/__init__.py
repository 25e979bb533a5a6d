"""Encoders: ``nn.Module``s called as ``(x, train)`` that return one vector an example, [B, D]."""

from byol_jax.models.resnet import ResNet, resnet, resnet18, resnet34, resnet50, resnet101, resnet152, resnet200
from byol_jax.models.text import TextEncoder, bert_base, bert_medium, bert_mini, bert_small, bert_tiny, minilm
from byol_jax.models.vit import ViT, vit_b16, vit_s16

__all__ = [
    "ResNet",
    "TextEncoder",
    "ViT",
    "bert_base",
    "bert_medium",
    "bert_mini",
    "bert_small",
    "bert_tiny",
    "minilm",
    "resnet",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnet200",
    "vit_b16",
    "vit_s16",
]
