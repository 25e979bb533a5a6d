"""Which example stands where: every example once an epoch, for any batch size and number of shards, and from any step on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byol_jax.data import order
from byol_jax.data.order import Shard


def take(count: int, **arguments):
    """The first batches' indices and epochs, one after the other."""
    index, epoch = zip(*itertools.islice(order.batches(**arguments), count), strict=True)
    return np.concatenate(index), np.concatenate(epoch)


def test_values_are_fixed():
    # A run's data must stay what it was when it is resumed under a later version of this package.
    index, epoch = take(3, n=5, batch_size=4, seed=0)
    assert index.tolist() == [4, 1, 2, 0, 3, 0, 2, 4, 1, 3, 3, 1]
    assert epoch.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert order.example_seed(1, np.array([0, 7]), np.array([0, 3])).tolist() == [
        [-5653703133376969021, -2125252769065580202],
        [-324568441368159022, 370265650698525299],
    ]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    local=st.integers(1, 9),
    shards=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
    start=st.integers(0, 20),
)
def test_every_example_once_an_epoch_and_the_same_for_any_shards(n, local, shards, seed, start):
    size = local * shards
    steps = -(-3 * n // size)
    whole_index, whole_epoch = take(steps + start, n=n, batch_size=size, seed=seed)
    for epoch in range(3):
        assert sorted(whole_index[whole_epoch == epoch]) == list(range(n))
    np.testing.assert_array_equal(whole_epoch, np.arange(len(whole_epoch)) // n)
    parts = [order.batches(n=n, batch_size=size, seed=seed, start_step=start, shard=Shard(i, shards)) for i in range(shards)]
    for step in range(start, start + steps):
        rows = [next(part) for part in parts]
        for got, whole in zip(zip(*rows, strict=True), (whole_index, whole_epoch), strict=True):
            np.testing.assert_array_equal(np.concatenate(got), whole[step * size : (step + 1) * size])


def test_epochs_and_seeds_differ():
    orders = [tuple(order.permutation(seed, epoch, 50)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


def test_a_permutation_cannot_be_spoilt():
    with pytest.raises(ValueError, match="read-only"):
        order.permutation(0, 0, 5)[0] = 9


@given(seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 1000), index=st.integers(0, 10**7))
@settings(max_examples=30, deadline=None)
def test_example_seed_depends_on_its_three_numbers_only(seed, epoch, index):
    alone = order.example_seed(seed, np.array([epoch]), np.array([index]))[0]
    among = order.example_seed(seed, np.array([epoch + 1, epoch, epoch]), np.array([index, index, index + 1]))
    np.testing.assert_array_equal(alone, among[1])
    assert len({tuple(row) for row in among.tolist()}) == 3
    assert tuple(order.example_seed((seed + 1) % 2**64, np.array([epoch]), np.array([index]))[0]) != tuple(alone)


@given(n=st.integers(1, 50), local=st.integers(1, 7), shards=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_one_pass_keeps_everything_in_step(n, local, shards):
    size = local * shards
    parts = [list(order.one_pass(n, size, Shard(i, shards).rows(size))) for i in range(shards)]
    assert {len(part) for part in parts} == {-(-n // size)}
    together = np.concatenate([np.concatenate(step) for step in zip(*parts, strict=True)])
    np.testing.assert_array_equal(together, np.arange(n))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "n=0: there must be at least one example"),
        ({"batch_size": 0}, "batch_size=0: must be at least 1"),
        ({"batch_size": 10, "shard": Shard(0, 4)}, "batch_size=10 is not divisible by the 4 processes; nearest valid: 8 or 12"),
        ({"batch_size": 3, "shard": Shard(0, 4)}, "batch_size=3 is not divisible by the 4 processes; nearest valid: 4"),
        ({"start_step": -1}, "start_step=-1: must be at least 0"),
        ({"seed": -1}, "seed=-1: must be an integer in 0"),
        ({"seed": 0.5}, "seed=0.5: must be an integer in 0"),
    ],
)
def test_wrong_arguments(changes, message):
    with pytest.raises(ValueError, match=message):
        order.batches(**{"n": 5, "batch_size": 4, "seed": 0, **changes})


@pytest.mark.parametrize("shard", [(1, 1), (-1, 2), (0, 0)])
def test_wrong_shard(shard):
    with pytest.raises(ValueError, match=r"index must lie in 0\.\.count-1"):
        Shard(*shard)
