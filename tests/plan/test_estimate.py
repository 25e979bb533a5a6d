"""Verdicts, rooflines and advice, by values worked out by hand."""

from __future__ import annotations

import pytest

from byol_jax import config
from byol_jax.plan import estimate
from byol_jax.plan.chips import Chip
from byol_jax.plan.compile import Compiled

CHIP = Chip("test", memory=1000, flops=100, bandwidth=10, source="this test")
SPEC = config.resolve({"steps": 100, "batch_size": 64})


def compiled(**changes: object) -> Compiled:
    return Compiled(devices=4, hosts=2, rows=16, **changes)  # type: ignore[arg-type]


def test_the_peak_counts_what_lies_in_the_arguments_place_once() -> None:
    assert compiled(arguments=100, outputs=90, aliased=80, temporaries=30, code=7).peak == 147


@pytest.mark.parametrize(("temporaries", "said"), [(800, "fits"), (801, "tight"), (900, "tight"), (901, "does not fit")])
def test_the_verdict(temporaries: int, said: str) -> None:
    assert estimate.verdict(compiled(arguments=100, temporaries=temporaries), CHIP) == said


def test_no_verdict_and_no_time_where_nothing_is_known() -> None:
    unknown = Chip("CPU", None, None, None, "")
    assert estimate.verdict(compiled(temporaries=10**12), unknown) == "not judged"
    assert estimate.roofline(compiled(flops=1, moved=1), unknown) is None
    assert estimate.advice(SPEC, compiled(temporaries=10**12), unknown) == []


def test_the_roofline_is_the_slower_of_the_two() -> None:
    by_bytes = estimate.roofline(compiled(flops=50, moved=20), CHIP)
    assert by_bytes is not None
    assert (by_bytes.compute, by_bytes.memory, by_bytes.seconds, by_bytes.bound_by) == (0.5, 2.0, 2.0, "bytes")
    by_flops = estimate.roofline(compiled(flops=700, moved=20), CHIP)
    assert by_flops is not None
    assert (by_flops.seconds, by_flops.bound_by) == (7.0, "operations")
    assert estimate.hours(7.0, 1800) == 3.5
    assert estimate.examples_per_second(SPEC, 2.0) == 32


OVERFLOW = (  # of libtpu 0.0.42, for a v5e
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (23.30G) exceeds available HBM (15.75G)."
)


def test_what_the_compiler_could_not_fit() -> None:
    no = compiled(overflow=OVERFLOW + "\nmore")
    assert estimate.verdict(no, CHIP) == "does not fit"
    assert estimate.overflow(no) == OVERFLOW.removeprefix("RESOURCE_EXHAUSTED: ")
    assert estimate.roofline(no, CHIP) is None
    assert no.faults() == []


def test_advice_names_keys_with_values_that_would_fit() -> None:
    # 100 of state; 0.9 * 1000 - 100 = 800 are left for 3000 of temporaries: 4 micro-batches need 750 each, 3 does not divide 16
    tips = estimate.advice(SPEC, compiled(arguments=100, temporaries=3000), CHIP)
    assert [tip.partition(":")[0] for tip in tips] == [
        "more chips",
        "--config.encoder.remat=True",
        "--config.optimizer.shard_state=True",
        "--config.encoder.dtype=bfloat16",
        "--config.optimizer.accumulate=4",
        "--config.batch_size=32",
    ]
    assert "on 8 of them a chip has 8 examples instead of 16" in tips[0]
    assert "4 examples a chip at a time, batch statistics of 16" in tips[4]


def test_what_is_on_already_or_not_ours_to_change_is_no_advice() -> None:
    for encoder in ({"remat": True}, {"name": "mine.nets:Net"}):
        spec = config.resolve({"steps": 100, "batch_size": 64, "encoder": encoder})
        assert not any("remat" in tip for tip in estimate.advice(spec, compiled(arguments=100, temporaries=3000), CHIP))


def test_advice_where_the_state_alone_is_too_large() -> None:
    (tip,) = estimate.advice(SPEC, compiled(arguments=950, temporaries=100), CHIP)
    assert tip.startswith("--config.optimizer.shard_state=True: each chip holds a share")
    split = config.resolve({"steps": 100, "batch_size": 64, "optimizer": {"shard_state": True}})
    (tip,) = estimate.advice(split, compiled(arguments=950, temporaries=100), CHIP)
    assert tip.startswith("the state alone fills the chip")


def test_data_on_the_devices_is_the_first_to_go() -> None:
    for changes in ({"arguments": 950}, {"arguments": 100, "temporaries": 3000}):
        tips = estimate.advice(SPEC, compiled(data=80, **changes), CHIP)
        assert tips[0] == "--config.data.on_device=False: the host sends the images; the same result"
        assert tips[1:] == estimate.advice(SPEC, compiled(**changes), CHIP)


def test_advice_after_an_overflow_takes_the_next_number_of_parts() -> None:
    assert estimate.next_parts(compiled(overflow=OVERFLOW), None, 1) == 2
    assert estimate.next_parts(compiled(overflow=OVERFLOW), None, 2) == 4
    assert estimate.next_parts(compiled(overflow=OVERFLOW), None, 16) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1520, "1.52 kB"),
        (25_100_000_000, "25.1 GB"),
        (154e6, "154 MB"),
        (13.1e12, "13.1 TB"),
        (2e18, "2,000 PB"),
    ],
)
def test_quantities(value: float, text: str) -> None:
    assert estimate.quantity(value, "B") == text


def test_faults_are_told_by_kind_and_by_bytes() -> None:
    sums = {"gradients": 10**8, "statistics": 10**6}
    assert compiled(collectives={"all-reduce": [9, 101_000_000]}, **sums).faults() == []
    assert compiled(collectives={"all-reduce": [9, 102_000_000]}, **sums).faults() == []  # a hundredth, and metrics
    (more,) = compiled(collectives={"all-reduce": [9, 103_000_000]}, **sums).faults()
    assert more.startswith("all-reduces of 103,000,000 bytes, where gradients and batch statistics have 101,000,000")
    assert compiled(collectives={"all-reduce": [9, 103_000_000]}, fetched={"all-reduce": 1_000_000}, **sums).faults() == []
    (fewer,) = compiled(collectives={"all-reduce": [9, 99_999_999]}, **sums).faults()
    assert fewer.startswith("all-reduces of 99,999,999 bytes are fewer than the gradients' 100,000,000")
    assert len(compiled(collectives={}, **sums).faults()) == 1
    (other,) = compiled(collectives={"all-reduce": [9, 101_000_000]}, strangers=("all-gather of 2 x 8 bytes in loss",), **sums).faults()
    assert other.startswith("all-gather of 2 x 8 bytes in loss: only gradients")
    assert Compiled(devices=1, hosts=1, rows=16, **sums).faults() == []


def test_a_split_state_gathers_its_parameters_and_nothing_else() -> None:
    sums: dict[str, int] = {"gathered": 2 * 10**8, "gradients": 10**8, "statistics": 10**6}
    assert compiled(collectives={"all-reduce": [9, 101_000_000], "all-gather": [5, 200_000_000]}, **sums).faults() == []
    # 25,000,000 bytes on each of 4 devices are 100,000,000 of gradients
    scattered = {"all-reduce": [9, 10**6], "reduce-scatter": [5, 25_000_000], "all-gather": [5, 200_000_000]}
    assert compiled(collectives=scattered, **sums).faults() == []
    (fewer,) = compiled(collectives=scattered | {"reduce-scatter": [5, 20_000_000]}, **sums).faults()
    assert fewer.startswith("all-reduces of 81,000,000 bytes are fewer than the gradients' 100,000,000")
    (twice,) = compiled(collectives={"all-reduce": [9, 101_000_000], "all-gather": [9, 500_000_000]}, **sums).faults()
    assert twice.startswith("all-gathers of 500,000,000 bytes, where the parameters have 200,000,000")
    (other,) = compiled(collectives={"all-reduce": [9, 101_000_000]}, strangers=("all-gather of 2 x 8 bytes in loss",), **sums).faults()
    assert "batch statistics and metrics, and parameters before the step, may cross chips" in other
