"""The TPU's own compiler, on a machine without a TPU. Minutes long; another process, because libtpu is loaded once and for all."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--config.batch_size=32", "--config.views.size=64", "--config.encoder.dtype=bfloat16")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="no TPU compiler: pip install -e '.[tpu-plan]'")
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_resnet18_compiles_for_four_chips_and_only_sums_cross_them(tmp_path: Path, topology: str) -> None:
    told = ("--examples", "1281167", "--classes", "1000", "--cache", str(tmp_path))
    command = [sys.executable, "-m", "byol_jax", "plan", "--config", "configs/imagenet.py:r18", *SMALL, "--topology", topology, *told]
    alone = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}  # the tests' eight fake devices
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    assert f"{topology}: 4 x TPU {topology.partition(':')[0]}, 1 host of 4" in done.stdout
    (file,) = tmp_path.iterdir()
    compiled = json.loads(file.read_text())["compiled"]
    assert list(compiled["collectives"]) == ["all-reduce"]
    reduced = compiled["collectives"]["all-reduce"][1]
    assert compiled["gradients"] < reduced < compiled["gradients"] + compiled["statistics"] + 65536
    assert 3 * compiled["gradients"] < compiled["arguments"] < 4 * compiled["gradients"]  # online, target, momentum; statistics, pixels
    assert compiled["flops"] > 1e9
    assert compiled["overflow"] is None
