"""Linear evaluation against the official implementation: four SGD steps on a frozen ResNet-18, the test metrics, top-k ties."""

import importlib.util
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from byol_jax import views
from byol_jax.convert.haiku import params_tree, stats_tree
from byol_jax.evaluate import Encoder, Features
from byol_jax.evaluate.linear import Classifier, score
from byol_jax.evaluate.sgd import Layers, init_layers, sgd_step
from byol_jax.method.probe import in_top_k
from byol_jax.models import resnet18

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parent / "golden"))


@pytest.fixture(scope="module")
def rule():
    spec = importlib.util.spec_from_file_location("golden_rule", GOLDEN / "rule.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "h_linear_eval_ResNet18.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def salt():
    with np.load(GOLDEN / "f_ResNet18.npz") as file:
        return json.loads(file["config_json"].tobytes()).get("rule_salt", "")


@pytest.fixture(scope="module")
def embeddings(golden, rule, salt):
    """Features of both batches by our frozen encoder; the steps alternate between the batches."""
    encoder = Encoder(resnet18(), _variables(rule, salt), views.imagenet(golden["view1_u8"].shape[1]))
    return [encoder(golden["view1_u8"]), encoder(golden["view2_u8"])]


def _variables(rule, salt):
    table = json.loads((GOLDEN / "f_table_ResNet18_small.json").read_text())
    encoder = {kind: {m: leaves for m, leaves in table[kind].items() if m.startswith("res_net")} for kind in ("params", "state")}
    params = {m: {n: rule.param(m, n, shape, salt=salt) for n, shape in leaves.items()} for m, leaves in encoder["params"].items()}
    averages = {m: {"average": rule.state(m, "average", leaves["average"], salt=salt)} for m, leaves in encoder["state"].items()}
    return {"params": params_tree(params)["encoder"], "batch_stats": stats_tree(averages)["encoder"]}


def test_four_steps(golden, rule, salt, embeddings):
    """Two layers side by side, the second at half the rate: the first follows the official run and is not disturbed."""
    shape = golden["step0/w"].shape
    layers = init_layers(jax.random.key(0), *shape, rates=2)
    start = jnp.asarray(rule.param("linear", "w", list(shape), salt=salt))
    layers = Layers(Classifier(jnp.stack([start, start]), layers.classifier.b), layers.momentum)
    for step, rate in enumerate(golden["lr"]):
        batch = step % 2
        rates = jnp.asarray([rate, rate / 2])
        layers, loss = sgd_step(layers, jnp.asarray(embeddings[batch]), jnp.asarray(golden[f"labels{batch}"]), rates)
        np.testing.assert_allclose(loss[0], golden[f"step{step}/train_loss"], rtol=2e-6)
        np.testing.assert_allclose(layers.classifier.w[0], golden[f"step{step}/w"], rtol=1e-5, atol=2e-6)
        np.testing.assert_allclose(layers.classifier.b[0], golden[f"step{step}/b"], rtol=1e-5, atol=2e-6)
    assert np.abs(layers.classifier.w[1] - layers.classifier.w[0]).max() > 0.01


@pytest.fixture(scope="module")
def exact_embeddings(golden, rule, salt):
    """Features of the first batch computed in float64: what float32 rounds, here and in the official run, is not in them."""
    recipe = views.imagenet(golden["view1_u8"].shape[1])
    with jax.enable_x64(True):
        pixels = (golden["view1_u8"] / 255 - np.array(recipe.mean)) / np.array(recipe.std)
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), _variables(rule, salt))
        return np.asarray(resnet18(dtype=jnp.float64).apply(variables, jnp.asarray(pixels), False), np.float32)


def test_evaluation(golden, exact_embeddings):
    """A loss is a difference of logits: what float32 takes from the official one goes with the largest of them, however small the loss."""
    classifier = Classifier(jnp.asarray(golden["step3/w"]), jnp.asarray(golden["step3/b"]))
    label = golden["labels0"].astype(np.int32)
    for i in range(len(label)):
        top1, top5, loss = score(classifier, Features(exact_embeddings[i : i + 1], label[i : i + 1]))
        assert (top1, top5) == (golden["eval/top1_accuracy"][i], golden["eval/top5_accuracy"][i])
        largest = np.abs(exact_embeddings[i] @ golden["step3/w"] + golden["step3/b"]).max()
        np.testing.assert_allclose(loss, golden["eval/eval_loss"][i], rtol=0, atol=2e-6 * largest)
    whole = score(classifier, Features(exact_embeddings, label))
    means = [golden[f"eval/{name}"].mean(dtype=np.float64) for name in ("top1_accuracy", "top5_accuracy", "eval_loss")]
    np.testing.assert_allclose(whole, means, rtol=2e-6)


def test_the_encoder_gives_the_exact_features(embeddings, exact_embeddings):
    np.testing.assert_allclose(embeddings[0], exact_embeddings, rtol=1e-5, atol=1e-6 * np.abs(exact_embeddings).max())


@pytest.mark.parametrize("ties", ["", "_ties"])
def test_top_k_and_its_ties(ties):
    """Equal logits rank the higher class first, as in the official code."""
    with np.load(GOLDEN / "c_helpers.npz") as file:
        logits, labels = jnp.asarray(file["logits" + ties]), jnp.asarray(file["labels" + ties], jnp.int32)
        for k in (1, 5):
            np.testing.assert_array_equal(in_top_k(logits, labels, k), file[f"top{k}{ties}"])
