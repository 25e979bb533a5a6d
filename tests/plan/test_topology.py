"""Names of topologies, and the machines behind them."""

from __future__ import annotations

import re

import jax
import pytest

from byol_jax.config import ConfigError
from byol_jax.plan import topology


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("v5e:16x16", ("v5e", (16, 16))),
        ("v6e:1x1", ("v6e", (1, 1))),
        ("v4:4x4x8", ("v4", (4, 4, 8))),
        ("v5p:2x2x1", ("v5p", (2, 2, 1))),
        ("v5p:16x16x24", ("v5p", (16, 16, 24))),
        ("h100", ("h100", (1, 1))),
        ("h200:8", ("h200", (1, 8))),
        ("a100:4x8", ("a100", (4, 8))),
        ("gpu", ("gpu", ())),
        ("gpu:4", ("gpu", (4,))),
        ("cpu", ("cpu", (1,))),
        ("cpu:8", ("cpu", (8,))),
    ],
)
def test_names(name: str, parsed: tuple[str, tuple[int, ...]]) -> None:
    assert topology.parse(name) == parsed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "v5:16x16",
            "--topology v5:16x16: must be one of v4, v5e, v5p, v6e, a100, h100, h200, gpu, cpu, such as v5e:16x16 (did you mean 'v5",
        ),
        ("tpu", "must be one of v4, v5e, v5p, v6e, a100, h100, h200, gpu, cpu"),
        ("v5e", "must name the shape of a slice, such as v5e:4x4"),
        ("v5e:16", "v5e has no such slice: slices are 1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16 (did you mean 'v5e:4x4'?)"),
        ("v5e:16x15", "(did you mean 'v5e:16x16'?)"),
        ("v5e:8x4", "(did you mean 'v5e:4x8'?)"),
        ("v4:16x16", "2x2x1, 2x2x2, 2x2x4, 2x4x4, or three rising multiples of 4 up to 12x16x16 (did you mean 'v4:4x8x8'?)"),
        ("v4:8x4x4", "(did you mean 'v4:4x4x8'?)"),
        ("v5p:4x4x5", "(did you mean 'v5p:4x4x4'?)"),
        ("v6e:0x2", "must name the shape of a slice"),
        ("h100:32", "after h100: comes a number of cards in one host, up to 16, or hosts x cards, such as h100:8 or h100:4x8"),
        ("h100:0x8", "after h100: comes"),
        ("cpu:0", "after cpu: comes a number of devices, such as cpu:8"),
        ("gpu:two", "after gpu: comes a number of devices"),
    ],
)
def test_a_wrong_name_is_told_with_the_nearest_right_one(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        topology.parse(name)


def test_cpus_that_are_here() -> None:
    jax.devices()
    found = topology.find("cpu:4")
    assert (len(found.devices), found.hosts, found.attached, found.chip.memory) == (4, 1, True, None)
    with pytest.raises(ConfigError, match=r"--topology cpu:9: only 8 of them are here; nearest: cpu:8"):
        topology.find("cpu:9")


def test_no_gpu_and_no_compiler_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if jax.default_backend() == "cpu":
        with pytest.raises(ConfigError, match=r"--topology gpu: JAX finds no gpu here \(.*plan for a100, h100, h200 or a TPU instead"):
            topology.find("gpu")
    monkeypatch.setattr(topology.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--topology v5e:2x2: .*pip install 'byol-jax\[tpu-plan\]'"):
        topology.find("v5e:2x2")
