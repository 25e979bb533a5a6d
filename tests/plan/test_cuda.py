"""Cards that are not there. Their compiler is 5 GB: what it makes is looked at where it is installed, and in no fast test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from byol_jax.config import ConfigError
from byol_jax.plan import cuda, topology

ROOT = Path(__file__).parents[2]
HERE = any(map(cuda.installed, cuda.PLUGINS))


@pytest.mark.parametrize("name", list(cuda.CARDS))
def test_a_card_has_known_speeds_and_three_quarters_of_its_memory(name: str) -> None:
    card = cuda.CARDS[name]
    chip = cuda.chip(card)
    assert (chip.name, chip.memory) == (card.kind, 0.75 * card.memory)
    text = cuda.described(card)
    assert f"core_count: {card.cores}\n" in text
    assert f"memory_bandwidth: {chip.bandwidth:.0f}\n" in text
    assert text.count("{") == text.count("}")


def test_without_the_compiler_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--topology h100:8: needs XLA's compiler for GPUs.*pip install 'byol-jax\[cuda13\]'"):
        topology.find("h100:8")
    assert jax.config.jax_platforms == "cpu"


@pytest.mark.slow
@pytest.mark.skipif(not HERE, reason="no compiler for GPUs: pip install -e '.[cuda13]'")
def test_a_bottleneck_compiles_for_two_cards_and_only_sums_cross_them(tmp_path: Path) -> None:
    small = ("batch_size=32", "views.size=64", "encoder.dtype=bfloat16", "encoder.name=resnet", "encoder.block=bottleneck")
    network = (*small, "encoder.stages=[1,1]", "encoder.channels=[256,512]", "encoder.stem=imagenet")
    told = ("--examples", "1281167", "--classes", "1000", "--cache", str(tmp_path), *(f"--config.{one}" for one in network))
    command = [sys.executable, "-m", "byol_jax", "plan", "--config", "configs/imagenet.py", "--topology", "h100:2", *told]
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the tests' eight fake devices
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr
    assert "h100:2: 2 x NVIDIA H100 80GB HBM3, 1 host of 2" in done.stdout
    (file,) = tmp_path.iterdir()
    compiled = json.loads(file.read_text())["compiled"]
    assert list(compiled["collectives"]) == ["all-reduce"]
    assert compiled["flops"] > 1e9
    assert compiled["moved"] > compiled["arguments"]
    assert compiled["overflow"] is None
