"""Encoders: ``nn.Module``s called as ``(x, train)`` that return one vector an example, [B, D]."""

from byol_jax.models.resnet import ResNet, resnet, resnet18, resnet34, resnet50, resnet101, resnet152, resnet200

__all__ = ["ResNet", "resnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"]
