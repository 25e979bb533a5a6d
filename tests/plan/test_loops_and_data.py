"""What a plan says of a step that loops over layers, and of one that fetches its batch from data on the devices."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import config, parallel
from byol_jax.plan import cache, report, topology
from byol_jax.plan import compile as compiling
from byol_jax.plan.chips import TPUS
from byol_jax.plan.compile import Compiled, compile_step, size_of, trace
from byol_jax.plan.inputs import look
from byol_jax.plan.products import products


@pytest.fixture(autouse=True)
def eight_devices() -> None:
    """JAX has started: a plan for some of them takes them as they are, for the tests that follow too."""
    jax.devices()


def test_layers_of_a_scan_are_all_counted_and_bytes_of_theirs_told_as_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = SimpleNamespace(**{f"{name}_size_in_bytes": 0 for name in ("argument", "output", "alias", "temp", "generated_code")})
    program = SimpleNamespace(memory_analysis=lambda: sizes, cost_analysis=lambda: {"flops": 1.0, "bytes accessed": 9e6}, as_text=str)
    monkeypatch.setattr(compiling, "_with_its_names", lambda lowered: program)
    tiny = {"hidden": 8, "out": 4}
    form: dict[str, Any] = {"steps": 10, "batch_size": 8, "data": {"source": "digits"}, "views": {"preset": "gray", "size": 8}}
    form |= {"method": {"projector": tiny, "predictor": tiny}, "optimizer": {"name": "adamw", "learning_rate": 0.1, "warmup_epochs": 0}}
    found, counted = {}, []

    def traced(*given: Any) -> Any:
        state, step = trace(*given)
        counted.append(products(step.jaxpr.jaxpr))
        return state, SimpleNamespace(jaxpr=step.jaxpr, lower=lambda: None)

    monkeypatch.setattr(compiling, "trace", traced)
    for scan in (True, False):
        args = {"patch": 4, "layers": 4, "hidden": 8, "heads": 2, "mlp": 16, "scan": scan}
        spec = config.resolve({**form, "encoder": {"name": "byol_jax.models.vit:ViT", "args": args}})
        found[scan] = compile_step(spec, topology.find("cpu:1"), look(spec))
    assert counted[0] == counted[1] > 1
    assert (found[True].flops, found[True].looped, found[False].flops, found[False].looped) == (counted[0], True, 1.0, False)

    text = config.resolve({"steps": 10, "batch_size": 8, "encoder": {"transformer": {"scan": True}}})
    assert report.work(text, Compiled(1, 1, 8, flops=5e6, moved=9e6, looped=True))[1:] == [
        "  operations                      5.00 MFLOP of matrix products and convolutions",
        "  bytes between memory and cores  9.00 MB at least: one turn of each loop; "
        "--config.encoder.transformer.scan=False has the same layers, and all of them counted",
    ]
    times = report.time(spec, topology.Topology("v5e:1x1", TPUS["v5e"], (), False), look(spec), Compiled(1, 1, 8, moved=819e6, looped=True))
    assert [line.split("  ")[-1].strip() for line in times[2:5]] == ["1.0 ms", "0.0 ms", "1.0 ms, of those that are known"]


def test_data_on_the_devices_counts_and_its_rows_may_cross_them() -> None:
    """1,438 images of 8x8 on 4 devices: 360 each, of 192 bytes and a label. A device fetches 2 of them by all 8 indices."""
    tiny, heads = {"hidden": 8, "out": 4}, ("projector", "predictor")
    form: dict[str, Any] = {
        "steps": 10,
        "batch_size": 8,
        "data": {"source": "digits", "on_device": True},
        "method": dict.fromkeys(heads, tiny),
    }
    form |= {"views": {"preset": "gray", "size": 8}, "optimizer": {"name": "adamw", "learning_rate": 0.1, "warmup_epochs": 0}}
    form |= {"encoder": {"name": "byol_jax.models.vit:ViT", "args": {"patch": 4, "layers": 1, "hidden": 8, "heads": 2, "mlp": 8}}}
    spec, machine = config.resolve(form), topology.find("cpu:4")
    inputs = look(spec)
    assert (inputs.batch, inputs.held) == ({"index": ((), np.dtype(np.int32))}, (1438, (8, 8, 3)))
    found = compile_step(spec, machine, inputs)
    assert found.data == 360 * (8 * 8 * 3 + 4)
    assert found.fetched == {"all-gather": 8 * 4, "reduce-scatter": 2 * (8 * 8 * 3 + 4)}
    assert found.faults() == []
    shapes, _ = trace(spec, parallel.data_mesh(machine.devices), inputs)
    assert size_of(shapes) < found.arguments - found.data < size_of(shapes) + 1024
    told = "\n".join(report.memory(spec, machine, found) + report.traffic(found))
    assert "  a share of the data  70.6 kB\n" in told
    assert "  for the batch: 424 B of indices and rows, since the data lies on the chips" in told

    fed = dataclasses.replace(spec, data=dataclasses.replace(spec.data, on_device=False))
    assert config.digest(fed) == config.digest(spec)
    assert cache.key(fed, machine, look(fed)) != cache.key(spec, machine, inputs)
    small = dataclasses.replace(machine, chip=dataclasses.replace(machine.chip, memory=100_000))
    with pytest.raises(ValueError, match=r"1,438 images of 8x8 take 0\.1 MB on each of 4 device"):
        compile_step(spec, small, inputs)
