"""Devices of NVIDIA cards that need not be there, for XLA's compiler for GPUs, which comes with JAX's CUDA plugin."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from byol_jax.config import ConfigError
from byol_jax.plan.chips import Chip, known

PLUGINS = ("jax_plugins.xla_cuda13", "jax_plugins.xla_cuda12")
SHARE = 0.75  # of a card's memory, which JAX takes unless XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise


@dataclass(frozen=True)
class Card:
    """What XLA asks of a card. Sizes are bytes.

    Attributes:
      kind: JAX's ``device_kind``. capability: CUDA's compute capability, major and minor.
      memory: of the card; cache: L2. cores: multiprocessors, of ``units`` float32 units; clock: GHz, at most.
      shared: memory of a multiprocessor; block: what of it one block can have.
    """

    kind: str
    capability: tuple[int, int]
    memory: int
    cache: int
    cores: int
    units: int
    clock: float
    shared: int
    block: int


CARDS = {
    "a100": Card("NVIDIA A100-SXM4-80GB", (8, 0), 85_100_000_000, 41_943_040, 108, 64, 1.41, 167_936, 166_912),
    "h100": Card("NVIDIA H100 80GB HBM3", (9, 0), 84_900_000_000, 52_428_800, 132, 128, 1.98, 233_472, 232_448),
    "h200": Card("NVIDIA H200", (9, 0), 150_700_000_000, 52_428_800, 132, 128, 1.98, 233_472, 232_448),
}


def chip(card: Card) -> Chip:
    """Its speeds, and the memory that JAX takes of it.

    Raises:
      KeyError: a card whose speeds ``chips`` does not have.
    """
    found = known(card.kind)
    if found is None:
        raise KeyError(card.kind)
    return Chip(card.kind, SHARE * card.memory, found.flops, found.bandwidth, found.source, found.kinds)


def devices(name: str, card: Card, hosts: int, each: int) -> tuple[Any, ...]:
    """So many cards in each of so many hosts; no driver is asked, and no card.

    Raises:
      ConfigError: JAX has no CUDA plugin here, or it does not take the topology.
    """
    jax.config.update("jax_platforms", "cpu")
    if not any(installed(plugin) for plugin in PLUGINS):
        raise ConfigError([f"--topology {name}: needs XLA's compiler for GPUs, which is not here: pip install 'byol-jax[cuda13]'"])
    try:
        made = topologies.get_topology_desc(platform="cuda", target_config=described(card), topology=f"1x{hosts}x{each}")
    except RuntimeError as error:
        raise ConfigError([f"--topology {name}: the compiler for GPUs does not start: {str(error).splitlines()[0]}"]) from error
    return tuple(made.devices)


def installed(plugin: str) -> bool:
    try:
        return importlib.util.find_spec(plugin) is not None
    except ModuleNotFoundError:  # not even the package of plugins
        return False


def described(card: Card) -> str:
    """A ``GpuTargetConfigProto`` as text: what differs between cards, and what all of them have."""
    bandwidth = chip(card).bandwidth or 0
    return f"""
        platform_name: "CUDA"
        device_description_str: "{card.kind}"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 8 }}
        gpu_device_info {{
          cuda_compute_capability {{ major: {card.capability[0]} minor: {card.capability[1]} }}
          device_memory_size: {card.memory}
          memory_bandwidth: {bandwidth:.0f}
          l2_cache_size: {card.cache}
          core_count: {card.cores}
          fpus_per_core: {card.units}
          clock_rate_ghz: {card.clock}
          shared_memory_per_core: {card.shared}
          shared_memory_per_block_optin: {card.block}
          shared_memory_per_block: 49152
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          registers_per_block_limit: 65536
          registers_per_core_limit: 65536
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
        }}"""
