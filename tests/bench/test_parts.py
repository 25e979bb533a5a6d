"""Timing, FLOPs, memory and what is written of them, against numbers worked out by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from rich.console import Console

from byol_jax import bench
from byol_jax.bench import compiler, result
from byol_jax.bench import input as bench_input
from byol_jax.bench.timing import Lap, Timed, in_turns, lap, ratio, take_turns, what_is_left
from byol_jax.config import ConfigError, load


def test_median_and_distance_of_the_quartiles() -> None:
    timed = Timed((5.0, 1.0, 2.0, 3.0, 100.0), (1.0, 1.0, 0.5, 0.5, 1.0))
    assert (timed.median, timed.spread, timed.median_cpu) == (3.0, 3.0, 1.0)  # sorted 1 2 3 5 100: quartiles 2 and 5
    assert (Timed((2.0, 4.0), (1.0, 1.0)).median, Timed((7.0,), (1.0,)).spread) == (3.0, 0.0)


def test_the_ratio_is_of_neighbours() -> None:
    """A machine that slows down by the round does not change it, where a ratio of medians would: 8 / 4."""
    assert ratio((2.0, 8.0, 90.0), (1.0, 4.0, 30.0)) == 2.0
    assert ratio((3.0, 8.0, 90.0), (1.0, 4.0, 30.0)) == 3.0


def test_calls_are_measured_in_turns_after_one_round() -> None:
    asked: list[str] = []
    times = in_turns({name: partial(asked.append, name) for name in ("ours", "peer")}, 3, least=0.0)
    # Two each to compile and to see how long one takes; then two a turn, of which the first is not counted.
    assert asked == ["ours"] * 2 + ["peer"] * 2 + ["ours", "ours", "peer", "peer"] * 3
    assert {name: len(timed.seconds) for name, timed in times.items()} == {"ours": 3, "peer": 3}
    numbers = iter([Lap(1.0, 0.1), Lap(2.0, 0.2), Lap(3.0, 0.3), Lap(4.0, 0.4)])
    found = take_turns({"a": lambda: next(numbers), "b": lambda: next(numbers)}, 2, warm=False)
    assert found == {"a": Timed((1.0, 3.0), (0.1, 0.3)), "b": Timed((2.0, 4.0), (0.2, 0.4))}
    assert what_is_left(found["b"], found["a"]) == Timed((1.0, 1.0), (0.1, pytest.approx(0.1)))
    with pytest.raises(ValueError, match="--repeats 0: must be 1 or more"):
        in_turns({}, 0)


def test_short_calls_are_made_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that each call moves on by 1/16 s: four of them are 1/4 s, and a lap is their mean."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def call() -> None:
        now[0] += 0.0625

    assert in_turns({"step": call}, 2, least=0.2)["step"].seconds == (0.0625, 0.0625)
    assert now[0] == 0.0625 * (2 + 2 * (1 + 4))


def test_two_calls_at_most_are_on_their_way() -> None:
    told: list[str] = []

    class Made:
        def __init__(self, number: int) -> None:
            self.number = number
            told.append(f"begun {number}")

        def block_until_ready(self) -> None:
            told.append(f"awaited {self.number}")

    numbers = itertools.count()
    lap(lambda: Made(next(numbers)), times=3)
    assert told == ["begun 0", "begun 1", "awaited 0", "begun 2", "awaited 1", "awaited 2"]


@pytest.mark.parametrize("devices", [1, 4])
def test_flops_of_two_dense_layers(devices: int) -> None:
    """[B, I] @ [I, H], relu, @ [H, O]: 2 B I H + 2 B H O of the products and B H of the relu, whoever shares the rows."""
    b, i, h, o = 16, 24, 32, 8
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    rows, whole = (NamedSharding(mesh, spec) for spec in (PartitionSpec("data"), PartitionSpec()))
    x, first, second = jnp.ones((b, i)), jnp.ones((i, h)), jnp.ones((h, o))
    placed = jax.device_put(x, rows), jax.device_put(first, whole), jax.device_put(second, whole)
    traced = jax.jit(lambda x, first, second: jax.nn.relu(x @ first) @ second).trace(*placed)
    assert compiler.flops(traced, traced.lower().compile(), devices) == 2 * b * i * h + 2 * b * h * o + b * h


def test_flops_of_a_gpu_are_counted_in_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 3x3 convolution of 4 channels to 8 on 10x6 pixels, stride 2, batch 2: 2 x (2 5 3 8) x (3 3 4) FLOPs; each gradient as many.

    The dense layer: 2 x (2 x 8 x 5), and twice that back. The loop turns three times, and two devices share the rows.
    """
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])

    def loss(weights: Any, x: jax.Array) -> jax.Array:
        kernel, dense = weights
        y = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sum(y.mean((1, 2)) @ dense)

    def three(weights: Any, x: jax.Array) -> Any:
        return jax.lax.scan(lambda total, _: (total + jnp.sum(jax.grad(loss, argnums=1)(weights, x)), None), 0.0, length=3)[0]

    both = jax.shard_map(three, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec(), check_vma=False)
    traced = jax.jit(both).trace((jnp.ones((3, 3, 4, 8)), jnp.ones((8, 5))), jnp.ones((4, 10, 6, 4)))
    unused: Any = None
    conv, product = 2 * (2 * 5 * 3 * 8) * (3 * 3 * 4), 2 * 2 * 8 * 5
    assert compiler.flops(traced, unused, 2) == 2 * 3 * (2 * conv + 2 * product)


def test_of_a_loop_the_compiler_counts_one_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """[16, 24] @ [24, 24] eight times; and as many sums. Unrolled, as micro-batches are on a CPU, it is counted whole."""
    product = 2 * 16 * 24 * 24

    def found(platform: str, unroll: int, accumulate: int) -> float:
        monkeypatch.setattr(jax, "default_backend", lambda: platform)
        loop = jax.jit(lambda x, w: jax.lax.scan(lambda total, _: (total + total @ w, None), x, length=8, unroll=unroll)[0])
        traced = loop.trace(jnp.ones((16, 24)), jnp.ones((24, 24)))
        return compiler.flops(traced, traced.lower().compile(), 1, accumulate)

    turn = product + 16 * 24
    assert 8 * turn <= found("tpu", unroll=1, accumulate=8) <= 8 * (turn + 4)
    assert found("cpu", unroll=8, accumulate=8) == 8 * turn
    for platform in ("cpu", "tpu"):
        assert found(platform, unroll=1, accumulate=1) == 8 * product  # layers, say: the products as they are written
    assert found("tpu", unroll=1, accumulate=4) == 8 * product


def test_memory_of_a_device_and_of_a_program() -> None:
    compiled = jax.jit(lambda x: x + 1).lower(jnp.ones(256)).compile()
    found, source = compiler.memory(compiled, jax.devices()[0])
    assert found >= 1024  # the argument
    assert "compiler" in source
    device: Any = SimpleNamespace(memory_stats=lambda: {"peak_bytes_in_use": 7})
    assert compiler.memory(compiled, device) == (7, "the device's peak so far")


def test_the_share_of_the_peak() -> None:
    h100: Any = SimpleNamespace(device_kind="NVIDIA H100 80GB HBM3")
    cpu: Any = SimpleNamespace(device_kind="cpu")
    assert compiler.share_of_peak(989e12, 2.0, [h100, h100]) == pytest.approx(0.25)
    assert compiler.share_of_peak(1.0, 1.0, [h100, cpu]) is None


def test_without_the_official_form_its_ratio_is_none() -> None:
    rows = result.Row("input", Timed((0.5,), (0.5,)), 60), result.Row("lightly", Timed((2.0,), (1.0,)), 60)
    spec: Any = SimpleNamespace(batch_size=60)
    facts = {"cores": 3, "samples_per_second_per_core": 40.0}
    found = result.Result(rows, {"lightly": "lightly"}, facts)
    line = result.line(found, "input", "x.py", {}, spec, synthetic=False)
    assert (line["ratio"], line["cpu_ratio"], line["peers"]) == (None, None, {"lightly": {"ratio": 4.0, "cpu_ratio": 2.0}})
    assert "40.0 samples/s per core on 3 of them; lightly 10.0." in found.sentences()
    assert result.line(result.Result(rows[:1]), "input", "x.py", {}, spec, synthetic=False)["peers"] == {}


def test_versions_are_of_what_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in result.OF_PEERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec: Any = SimpleNamespace(batch_size=1)
    module: Any = SimpleNamespace(__version__="1.6.0")
    monkeypatch.setitem(sys.modules, "lightly", module)
    versions = result.line(result.Result((result.Row("step", Timed((1.0,), (1.0,))),)), "step", "x.py", {}, spec, synthetic=True)[
        "versions"
    ]
    assert versions["lightly"] == "1.6.0"
    assert "torch" not in versions


def test_whole_rounds_of_workers_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four workers, 1.5 s a batch each, all at once: 4 are skipped, 8 counted in 3 s; from the third on it would be 9 in 3 s."""
    clock = [0.0]

    def rounds() -> Iterator[None]:
        while True:
            clock[0] += 1.5
            yield from [None] * 4

    read = SimpleNamespace(perf_counter=lambda: clock[0], process_time=lambda: 2 * clock[0])
    monkeypatch.setattr("byol_jax.bench.input.time", read)
    watch = bench_input.Stopwatch(lambda: contextlib.nullcontext(rounds()), 4)
    assert (watch(), watch.first) == (Lap(3 / 8, 6 / 8), [1.5])


@pytest.mark.skipif(not Path("/proc").exists(), reason="Linux tells of other processes' time in /proc")
def test_processor_time_is_that_of_workers_too() -> None:
    """A child that adds numbers: its time counts while it lives, and takes this process next to nothing."""
    child = multiprocessing.get_context("spawn").Process(target=sum, args=(range(10**12),), daemon=True)
    child.start()
    own, both = time.process_time(), bench_input.processor_time()
    until = time.monotonic() + 60
    while bench_input.processor_time() - both < 0.3 and time.monotonic() < until:
        time.sleep(0.02)
    added, mine = bench_input.processor_time() - both, time.process_time() - own
    child.terminate()
    child.join()
    assert added >= 0.3
    assert mine < added / 2
    assert bench_input.processor_time() - time.process_time() < 0.1


def test_the_table_and_the_line(tmp_path: Path) -> None:
    rows = (
        result.Row("step", Timed((0.5, 0.5), (0.4, 0.4)), 64),
        result.Row("augment", Timed((0.1, 0.1), (0.1, 0.1))),
        result.Row("four passes", Timed((0.75, 0.75), (0.8, 0.8)), 64),
        result.Row("lightly", Timed((0.25, 0.25), (0.5, 0.5)), 64),
    )
    facts = {"flops": 2e9, "share_of_bf16_peak": 0.125, "memory": 3 * 2**20, "memory_from": "the compiler"}
    found = result.Result(rows, {result.OFFICIAL: "four passes", "lightly": "lightly"}, facts)
    with (tmp_path / "screen").open("w") as screen:
        console = Console(width=160, record=True, file=screen)
        console.print(found.table("step: x"), *found.sentences(), sep="\n")
    text = console.export_text()
    for words in (
        "500.0",
        "128.0",
        "20.0%",
        "The official form takes 1.50 times as long, and 2.00 times the CPU time",
        "Lightly takes 0.50 times as long, and 1.25 times the CPU time",
        "2.00 GFLOP a step, 4.0 GFLOP/s, 12.5% of the peak",
        "3 MiB a device",
    ):
        assert words in text

    spec: Any = SimpleNamespace(batch_size=64)
    line = result.line(found, "step", "x.py", {"seed": "1"}, spec, synthetic=True)
    assert (line["samples_per_s"], line["median_s"], line["ratio"], line["cpu_ratio"], line["flops"], line["batch"]) == (
        128.0,
        0.5,
        1.5,
        2.0,
        2e9,
        64,
    )
    official, lightly = {"ratio": 1.5, "cpu_ratio": 2.0}, {"ratio": 0.5, "cpu_ratio": 1.25}
    assert line["peers"] == {"the official form": official, "lightly": lightly}
    assert line["rows"]["augment"] == {"median_s": 0.1, "spread_s": 0.0, "median_cpu_s": 0.1}
    assert line["versions"]["numpy"] == np.__version__
    file = tmp_path / "new" / "r.jsonl"
    result.append(file, line)
    result.append(file, {"what": "input"})
    assert [json.loads(text) for text in file.read_text().splitlines()] == [line, {"what": "input"}]


def test_all_processes_make_as_many_calls_as_the_slowest_clock_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one would wait for ever in a collective: here a call takes 1/16 s, 4 of them 0.2 s, and another process asks for 6."""
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("byol_jax.bench.timing.largest_of_all", lambda count: max(count, 6))

    def call() -> None:
        now[0] += 0.0625

    in_turns({"step": call}, 2, least=0.2)
    assert now[0] == 0.0625 * (2 + 2 * (1 + 6))


@pytest.mark.parametrize(
    ("what", "peer", "message"),
    [
        ("input", None, "bench input: measures one process, not 2; several are for step, augment without --peer"),
        ("step", "lightly", "--peer lightly: measures one process, not 2"),
    ],
)
def test_what_several_processes_do_not_measure(what: str, peer: str | None, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byol_jax.parallel.joined", lambda: 2)
    options: dict[str, Any] = {"synthetic": False, "baseline": False, "peer": peer}
    with pytest.raises(ConfigError, match=message):
        bench.run(what, load("configs/digits.py"), config="configs/digits.py", changes={}, **options)
