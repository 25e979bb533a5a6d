"""Chips by the names that JAX gives them: each name belongs to one, and near names to none."""

from __future__ import annotations

import pytest

from byol_jax.plan.chips import GPUS, TPUS, known


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v5p", 459e12),
        ("TPU v6 lite", 918e12),
    ],
)
def test_a_known_name(kind: str, flops: float) -> None:
    chip = known(kind)
    assert chip is not None
    assert chip.flops == flops


@pytest.mark.parametrize("kind", ["NVIDIA H100 PCIe", "NVIDIA H200 NVL", "TPU v4 lite", "cpu"])
def test_a_name_whose_numbers_are_others_or_not_known(kind: str) -> None:
    assert known(kind) is None


def test_no_name_stands_twice() -> None:
    names = [kind for chip in (*TPUS.values(), *GPUS) for kind in chip.kinds]
    assert len(names) == len(set(names))
