"""What accelerators can do, by the names that JAX gives them."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class Chip:
    """What a chip offers a program. A number that is not known is None, and nothing is concluded from it.

    Attributes:
      memory: bytes of HBM; flops: dense bfloat16 operations a second, bandwidth: bytes a second to and from HBM; both at most.
      source: where the three stand.
      kinds: JAX's ``device_kind``s of it.
    """

    name: str
    memory: float | None
    flops: float | None
    bandwidth: float | None
    source: str
    kinds: tuple[str, ...] = ()


TPUS = {
    "v4": Chip("TPU v4", 32 * GIB, 275e12, 1200e9, "https://cloud.google.com/tpu/docs/v4", ("TPU v4",)),
    "v5e": Chip("TPU v5e", 16 * GIB, 197e12, 819e9, "https://cloud.google.com/tpu/docs/v5e", ("TPU v5 lite", "TPU v5e")),
    "v5p": Chip("TPU v5p", 95 * GIB, 459e12, 2765e9, "https://cloud.google.com/tpu/docs/v5p", ("TPU v5", "TPU v5p")),
    "v6e": Chip("TPU v6e", 32 * GIB, 918e12, 1600e9, "https://cloud.google.com/tpu/docs/v6e", ("TPU v6 lite", "TPU v6e")),
}
A100 = "https://www.nvidia.com/en-us/data-center/a100/"
GPUS = (  # a card tells its memory itself; of those with a name in common the fastest memory, so that times stay lower bounds
    Chip("A100 40 GB", None, 312e12, 1555e9, A100, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")),
    Chip("A100 80 GB", None, 312e12, 2039e9, A100, ("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe")),
    Chip("H100 SXM", None, 989e12, 3350e9, "https://www.nvidia.com/en-us/data-center/h100/", ("NVIDIA H100 80GB HBM3",)),
    Chip("H200 SXM", None, 989e12, 4800e9, "https://www.nvidia.com/en-us/data-center/h200/", ("NVIDIA H200",)),
)


def known(device_kind: str) -> Chip | None:
    """The chip of this ``device_kind``; None where its numbers are not known here."""
    return next((chip for chip in (*TPUS.values(), *GPUS) if device_kind in chip.kinds), None)
