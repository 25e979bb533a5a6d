"""Spec -> objects: which constructor a name meets, lengths by hand, and errors in the user's own objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from byol_jax import build, method, models, views
from byol_jax import config as cfg
from byol_jax.build.show import describe, look_at_data

OWN = """
import flax.linen as nn
import numpy as np

class Net(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.width)(x.mean((1, 2)))

class Data:
    def __init__(self, split, n=5):
        self.split, self.n = split, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return {"image": np.full((4, 4, 3), i, np.uint8), "label": i % 3}

def loss(online, target):
    return 0.0, {}

def twin(example, seed):
    return {"view1": example["image"], "view2": example["image"]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_parts.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def spec(**changes: Any) -> cfg.Spec:
    config = cfg.default().to_dict()
    config |= {"epochs": 100, "batch_size": 256}
    for key, value in changes.items():
        node, *rest = key.split("__")
        config[node] = {**config[node], rest[0]: value} if rest else value
    return cfg.resolve(config)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnet200"])
def test_a_name_gives_that_network(name: str) -> None:
    assert build.encoder(spec(encoder__name=name)) == getattr(models, name)()


def test_every_encoder_key_arrives() -> None:
    got = build.encoder(spec(encoder={"name": "resnet18", "width": 3, "stem": "small", "zero_init_last_bn": True, "dtype": "bfloat16"}))
    assert got == models.resnet18(small_inputs=True, width=3, zero_init_last_bn=True, dtype=jnp.dtype("bfloat16"))
    from_torch = {"padding": "symmetric", "shortcut": "shape", "norm": "group"}
    assert build.encoder(spec(encoder=from_torch)) == models.resnet50(padding="symmetric", shortcut="shape", norm="group")
    tiny = {"name": "resnet", "block": "bottleneck", "stages": (1, 2), "channels": (8, 16)}
    assert build.encoder(spec(encoder=tiny)) == models.resnet((1, 2), (8, 16), block="bottleneck", small_inputs=False)
    wide_stem = models.resnet((1, 2), (8, 16), block="bottleneck", small_inputs=False, stem_channels=32)
    assert build.encoder(spec(encoder=tiny | {"stem_channels": 32})) == wide_stem


def test_the_method_and_its_heads() -> None:
    got = build.byol(spec(method={"projector": {"hidden": 7, "out": 5, "layers": 3}, "predictor": {"hidden": 6, "out": 5}}), classes=9)
    assert got.projector == method.MLP(hidden=7, out=5, layers=3)
    assert got.predictor == method.MLP(hidden=6, out=5, layers=2)
    assert (got.num_classes, got.loss) == (9, method.regression_loss)
    assert build.byol(spec(method__probe=False), classes=9).num_classes == 0


def test_the_switches_of_the_ablations() -> None:
    """No predictor, no target network, negatives: SimCLR (the value of its loss: tests/method/test_ablations.py)."""
    got = build.byol(spec(method={"predictor": {"layers": 0}, "target": "online", "beta": 1.0, "temperature": 0.5}))
    assert (got.predictor, got.target) == (method.NoHead(), "online")
    one = method.Outputs(None, *(jnp.asarray([[[1.0, 0.0]], [[0.0, 1.0]]]),) * 2)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    value = jax.shard_map(lambda pair: got.loss(pair, pair)[0], mesh=mesh, in_specs=P(None, "data"), out_specs=P(), check_vma=False)
    assert float(value(one)) == 4.0  # S = 0 for a batch of one: 2 + 2, and ln exp 0 = 0
    free = build.byol(spec(method={"projector": {"norm": "none"}, "predictor": {"norm": "group"}, "normalization": "none"}))
    assert (free.projector.norm, free.predictor.norm) == ("none", "group")
    assert float(free.loss(one._replace(prediction=3 * one.prediction), one)[0]) == 20.0  # |(3, 0) - (0, 1)|^2 twice


def test_lengths_by_hand() -> None:
    chosen = spec(optimizer__warmup_epochs=10)
    assert (build.steps(chosen, 1000), build.warmup_steps(chosen, 1000)) == (390, 39)  # 100 * 1000 // 256, 10 * 1000 // 256
    assert build.steps(spec(epochs=None, steps=77), 1000) == 77
    assert build.warmup_steps(spec(optimizer={"warmup_epochs": None, "warmup_steps": 5}), 1000) == 5
    assert build.warmup_steps(spec(optimizer__warmup_epochs=None), 1000) == 0
    with pytest.raises(
        cfg.ConfigError, match=r"optimizer\.warmup_epochs = 10 \(39 steps\): the warm-up must be shorter than the run of 20 steps"
    ):
        build.warmup_steps(spec(epochs=None, steps=20), 1000)
    with pytest.raises(cfg.ConfigError, match=r"epochs = 1 of 100 examples make no batch of batch_size = 256; take batch_size <= 100"):
        build.steps(spec(epochs=1, optimizer__warmup_epochs=None), 100)
    sparse = spec(optimizer={"sparsity": 0.8, "sparsity_steps": 391})
    with pytest.raises(cfg.ConfigError, match=r"sparsity_steps = 391: .* within the run of 390 steps; nearest: 390, better half of it"):
        build.steps(sparse, 1000)
    assert build.steps(sparse, 1003) == 391


def test_the_schedules_by_hand() -> None:
    chosen = spec(batch_size=512, optimizer={"learning_rate": 0.3, "warmup_epochs": None, "warmup_steps": 4}, epochs=None, steps=12)
    rate = build.learning_rate(chosen, 1000)
    np.testing.assert_allclose([rate(step) for step in (0, 2, 4, 8, 12)], [0, 0.3, 0.6, 0.3, 0], atol=1e-6)
    tau = build.tau(chosen, 1000)
    np.testing.assert_allclose([tau(0), tau(6), tau(12)], [0.996, 0.998, 1], atol=1e-6)
    constant = build.tau(spec(method={"tau": 0.9, "tau_schedule": "constant"}), 1000)
    np.testing.assert_allclose([constant(0), constant(99)], [0.9, 0.9], atol=1e-7)


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_the_optimizer_is_the_named_one(name: str) -> None:
    chosen = spec(optimizer={"name": name, "weight_decay": 0.1, "momentum": 0.5})
    options = {"lars": {"momentum": 0.5, "trust_coefficient": 1e-3}, "adamw": {}, "sgd": {"momentum": 0.5}}[name]
    expected = getattr(method, name)(0.01, weight_decay=0.1, **options)
    params = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
    grads = jax.tree.map(lambda leaf: 0.1 * leaf + 0.2, params)
    updates = []
    for tx in (build.optimizer(chosen, lambda step: jnp.float32(0.01)), expected):
        state = tx.init(params)
        for _ in range(2):
            update, state = tx.update(grads, state, params)
        updates.append(update)
    chex.assert_trees_all_close(*updates, rtol=1e-6)


def test_factors_on_rates_only_where_they_are_not_one() -> None:
    params = {"online": {name: jnp.ones(2) for name in ("encoder", "projector", "predictor")}, "probe": jnp.ones(2)}
    plain, chosen = (
        build.optimizer(spec(optimizer={"name": "sgd", "weight_decay": 0.0, **more}), lambda step: jnp.float32(0.5))
        for more in ({}, {"predictor_rate": 4.0, "projector_rate": 2.0, "probe_rate": 3})
    )
    update, _ = chosen.update(params, chosen.init(params), params)
    online = {"encoder": -0.5, "projector": -1.0, "predictor": -2.0}
    assert jax.tree.map(lambda leaf: float(leaf[0]), update) == {"online": online, "probe": -1.5}
    assert jax.tree.structure(plain.init(params)) == jax.tree.structure(method.sgd(lambda step: 0.5).init(params)), (
        "old checkpoints still fit"
    )


def test_sources_by_name(tmp_path: Path) -> None:
    digits = spec(data={"source": "digits", "test_split": "test"}, views={"preset": "gray", "size": 12})
    assert build.train_source(digits)[0]["image"].shape == (12, 12, 3)
    assert len(build.train_source(digits)) + len(build.test_source(digits)) == 1797
    assert build.num_classes(build.train_source(digits)) == 10
    assert build.test_source(spec()) is None
    parts = {"split": "train[:80%]", "labelled_split": "train[:10%]", "test_split": "train[80%:]"}
    held = spec(data={"source": "digits", **parts}, views={"preset": "gray", "size": 8})
    assert [len(source(held)) for source in (build.train_source, build.labelled_source, build.test_source)] == [1150, 144, 288]
    np.savez(tmp_path / "mine.npz", images=np.zeros((4, 5, 5), np.uint8), labels=np.array([0, 2, 1, 0]))
    arrays = build.train_source(spec(data={"source": "npz", "path": str(tmp_path / "mine.npz")}))
    assert (len(arrays), build.num_classes(arrays)) == (4, 3)


def test_a_folder_has_its_test_images_elsewhere(tmp_path: Path) -> None:
    from PIL import Image

    for part, count in (("train", 2), ("test", 1)):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / part / label / f"{i}.png")
    chosen = spec(data={"source": "folder", "path": str(tmp_path / "train"), "test_path": str(tmp_path / "test")})
    assert (len(build.train_source(chosen)), len(build.test_source(chosen))) == (4, 2)
    assert build.num_classes(build.train_source(chosen)) == 2
    held = spec(data={"source": "folder", "path": str(tmp_path / "train"), "split": "train[:75%]", "test_split": "train[75%:]"})
    learnt, test = build.train_source(held), build.test_source(held)
    assert (len(learnt), len(test), {*learnt.paths, *test.paths}) == (3, 1, set(build.train_source(chosen).paths))


def test_test_images_have_the_classes_of_the_training_images(tmp_path: Path) -> None:
    for place in ("train/cat", "train/dog", "train/owl", "test/dog", "test/owl"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.png").write_bytes(b"not opened here")
    places = {"path": str(tmp_path / "train"), "test_path": str(tmp_path / "test")}
    chosen = spec(data={"source": "folder", "max_bad_share": 0.25, **places})
    train, test = build.train_source(chosen), build.test_source(chosen)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [1, 2])
    assert test.class_names == train.class_names == ["cat", "dog", "owl"]
    assert train.max_bad_share == test.max_bad_share == 0.25


@pytest.mark.usefixtures("own")
def test_own_objects() -> None:
    splits = {"split": "all", "test_split": "held", "labelled_split": "known"}
    chosen = spec(
        encoder={"name": "my_own_parts:Net", "args": {"width": 6}},
        data={"source": "my_own_parts:Data", "args": {"n": 7}, "augment_on": "host"} | splits,
        method__loss="my_own_parts:loss",
        views__function="my_own_parts:twin",
    )
    assert build.encoder(chosen).width == 6
    assert [source(chosen).split for source in (build.train_source, build.labelled_source, build.test_source)] == ["all", "known", "held"]
    assert (len(build.train_source(chosen)), build.num_classes(build.train_source(chosen))) == (7, 3)
    assert build.byol(chosen).loss(None, None) == (0.0, {})
    assert build.training_views(chosen)({"image": 3}, 0) == {"view1": 3, "view2": 3}
    assert build.training_views(spec()) == views.imagenet(224)
    assert "embedding: 6 numbers an example" in describe(chosen)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("not_there_at_all:Net", {}, "encoder.name = 'not_there_at_all:Net': cannot import not_there_at_all"),
        ("my_own_parts:Met", {}, "encoder.name = 'my_own_parts:Met': my_own_parts has no Met (did you mean 'Net'?)"),
        ("my_own_parts:Net", {"depth": 2}, "encoder.name = 'my_own_parts:Net': my_own_parts:Net(depth=2) raised TypeError"),
    ],
)
def test_errors_in_own_objects(name: str, args: dict[str, int], message: str) -> None:
    with pytest.raises(cfg.ConfigError) as caught:
        build.encoder(spec(encoder={"name": name, "args": args}))
    assert message in str(caught.value)


def test_show_says_what_a_step_is() -> None:
    tiny = {"name": "resnet", "block": "basic", "stages": (1,), "channels": (8,), "stem": "small"}
    text = describe(
        spec(batch_size=64, epochs=2, encoder=tiny, views={"preset": "gray", "size": 8}, optimizer={"warmup_epochs": 1, "accumulate": 4})
    )
    assert "    learning_rate = 0.2\n" in text
    assert "  from the host: image uint8[64, H, W, 3] as stored; both crops are cut on the device, label int32[64]\n" in text
    assert "  in the network: 2 views, float32[2, 64, 8, 8, 3]\n  in 4 micro-batches of 16\n" in text
    assert "  data: 1,438 examples, 10 classes\n  steps per epoch: 22.5\n  steps in all: 44\n  of these warm-up: 22\n" in text
    assert "0.05 at its peak" in text
    # stem 3*3*3*8 and its norm 16; block: two 3x3 convs, two norms, the projection shortcut and its norm
    assert sum([216, 16, 2 * 9 * 64 + 64 + 3 * 16]) == 1496
    assert "encoder, all of it      1,496\n" in text
    assert "probe (10 classes)         90\n" in text
    assert "Parameters (the target network holds as many again)\n" in text
    alone = describe(spec(encoder=tiny, views={"preset": "gray", "size": 8}, method={"target": "stop_gradient"}))
    assert "Parameters (there is no target network)\n" in alone


def test_show_says_where_the_images_stand() -> None:
    tiny = {"name": "resnet", "block": "basic", "stages": (1,), "channels": (8,)}
    text = describe(spec(batch_size=64, encoder=tiny, views={"preset": "gray", "size": 8}, data={"on_device": True}))
    assert "  from the host: index int32[64]; images and labels stand on the devices, and both crops are cut there\n" in text
    assert "  in the network: 2 views, float32[2, 64, 8, 8, 3]" in text
    each = -(-1438 // 8) * (8 * 8 * 3 + 4)  # the tests see eight devices
    assert each == 35_280
    assert "  data: 1,438 examples, 10 classes; 35,280 bytes on each of 8 device(s)\n" in text


@pytest.mark.usefixtures("own")
def test_show_where_a_source_of_your_own_cannot_stay_on_the_device() -> None:
    mine = spec(data={"source": "my_own_parts:Data", "on_device": True})
    assert look_at_data(mine)[2] == "5 examples, 3 classes; not in memory as one array, which data.on_device needs"


def test_show_where_the_data_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = spec(data={"source": "folder", "path": str(tmp_path / "none")})
    assert look_at_data(missing)[0] is None
    assert "not there" in look_at_data(missing)[2]
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    away = spec(data={"source": "tfds", "name": "cifar10"})
    assert look_at_data(away) == (None, 0, "cifar10, not prepared on this machine: lengths in epochs stay open")


def test_claim_refuses_another_configuration_only_once_something_was_trained(tmp_path: Path) -> None:
    build.claim(tmp_path, spec())
    assert build.read_spec(tmp_path) == spec()
    build.claim(tmp_path, spec(seed=3))
    assert build.read_spec(tmp_path) == spec(seed=3)
    (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    with pytest.raises(cfg.ConfigError) as caught:
        build.claim(tmp_path, spec(seed=4, batch_size=512))
    assert caught.value.errors[:2] == ("seed: 3 there, 4 here", "batch_size: 256 there, 512 here")
    build.claim(tmp_path, spec(seed=3, checkpoint__keep=9))
    assert build.read_spec(tmp_path).checkpoint.keep == 9
    build.claim(tmp_path, spec(seed=3, data__on_device=True))  # the same bits come out
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_a_folder_without_a_run() -> None:
    with pytest.raises(cfg.ConfigError, match=r"--workdir nowhere: there is no run in it \(no config\.json\)"):
        build.read_spec("nowhere")
