"""``export --to hub``: the folder comes back as a run, and its card says what was configured and measured, and no more."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

import byol_jax
from byol_jax import build, cli, convert, models
from byol_jax import config as cfg
from byol_jax.build import objects
from byol_jax.checkpoint import Checkpoints
from byol_jax.convert import hub
from byol_jax.convert.layers import Net
from byol_jax.convert.pytorch_code import pytorch_code

with np.load(Path(__file__).parents[1] / "golden" / "torch_resnet_tiny.npz") as file:
    THEIRS = {key.removeprefix("basic/weights/"): file[key] for key in file if key.startswith("basic/weights/")}


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def make_run(workdir: Path, **encoder: Any) -> cfg.Spec:
    """A run on an npz file that stands at steps 3 and 5, with random weights."""
    data = workdir.parent / "secret" / "images.npz"
    data.parent.mkdir()
    rng = np.random.default_rng(0)
    images = {f"{split}_images": rng.integers(0, 256, (12, 8, 8, 3), np.uint8) for split in ("train", "test")}
    np.savez(data, **images, train_labels=np.arange(12) % 3, test_labels=np.arange(12) % 3)
    config = cfg.default()
    config.update(batch_size=48, steps=5)
    config.data.update(source="npz", split="train", test_split="test", path=str(data))
    config.views.update(preset="gray", size=8, mean=(0.1, 0.2, 0.3))
    config.encoder.update({"name": "resnet", "block": "basic", "stages": (1, 1), "channels": (4, 8), "stem": "small", **encoder})
    config.optimizer.update(name="sgd", learning_rate=0.125, warmup_epochs=None)
    spec = cfg.resolve(config)
    shapes = jax.eval_shape(lambda: objects.encoder(spec).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False))
    checkpoints = Checkpoints(workdir / "checkpoints", note={"config": "x"})
    for step in (3, 5):
        rng = np.random.default_rng(step)
        variables = jax.tree.map(lambda leaf, rng=rng: rng.uniform(0.1, 0.5, leaf.shape).astype(np.float32), shapes)
        checkpoints.save(step, {"online": {kind: {"encoder": tree} for kind, tree in variables.items()}}, force=True)
    checkpoints.close()
    build.claim(workdir, spec)
    return spec


def section(card: str, heading: str) -> str:
    return re.split(r"^## ", card.split(f"## {heading}\n")[1], maxsplit=1, flags=re.MULTILINE)[0].strip()


def front(card: str) -> list[str]:
    return card.split("---\n")[1].splitlines()


def test_the_folder_comes_back_as_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir, out, again = tmp_path / "run", tmp_path / "mine", tmp_path / "again"
    spec = make_run(workdir)
    assert run("export", "--workdir", str(workdir), "--to", "hub", "--output", str(out), "--licence", "apache-2.0") == 0
    names = ["model.safetensors", "model.preprocess.json", "config.json", "README.md"]
    assert capsys.readouterr().out == "".join(f"written to {out / name}\n" for name in names)
    assert {path.name for path in out.iterdir()} == set(names)
    assert run("convert", "--from", "torch", str(out / "model.safetensors"), "--to", str(again)) == 0
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    mine, back = (byol_jax.load_encoder(folder) for folder in (workdir, again))
    jax.tree.map(np.testing.assert_array_equal, mine.variables, back.variables)
    np.testing.assert_array_equal(mine(images), back(images))
    assert np.std(mine(images)) > 1e-3
    kept = json.loads((out / "config.json").read_text())
    assert kept["data"]["path"] == "images.npz"
    assert "secret" not in "".join(path.read_text() for path in out.iterdir() if path.suffix != ".safetensors")
    kept["data"]["path"] = spec.data.path
    assert cfg.from_json(json.dumps(kept)) == spec


def test_the_card_says_what_was_configured(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert run("export", "--workdir", str(tmp_path / "run"), "--to", "hub", "--output", str(tmp_path / "mine"), "--licence", "mit") == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert front(card)[:4] == ["license: mit", "library_name: byol_jax", "pipeline_tag: image-feature-extraction", "tags:"]
    assert {"- byol", "- self-supervised-learning", "- jax", "- flax", "- resnet"} == set(front(card)[4:])
    assert card.split("---\n")[2].startswith("\n# mine\n\nA resnet encoder, trained without labels by BYOL")
    assert "an image of 8 x 8 pixels into 8 numbers" in card
    assert "\nLicence: mit.\n" in card
    assert section(card, "Data") == "Trained on `npz` `images.npz`, split `train`."
    recipe = dict(re.findall(r"^\| `(.+)` \| (.+) \|$", section(card, "Recipe"), re.MULTILINE))
    assert (recipe["step of this checkpoint"], recipe["steps"], recipe["batch_size"]) == ("5", "5", "48")
    assert (recipe["optimizer.name"], recipe["optimizer.learning_rate"], recipe["method.projector.hidden"]) == ("sgd", "0.125", "4,096")
    assert {"epochs", "optimizer.warmup_epochs"}.isdisjoint(recipe)
    assert section(card, "Measured") == "Not evaluated."
    assert "| mean | 0.1, 0.2, 0.3 |" in section(card, "Preprocessing")
    assert "byol-jax convert --from torch model.safetensors --to runs/mine" in section(card, "In byol_jax")


def test_a_licence_left_open_is_said_to_be(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    assert run("export", "--workdir", str(tmp_path / "run"), "--to", "hub", "--output", str(tmp_path / "mine")) == 0
    card = (tmp_path / "mine" / "README.md").read_text()
    assert front(card)[0] == "license: other"
    assert "**Licence: not chosen.** Choose one" in card


def test_only_what_was_measured_on_this_checkpoint_is_shown(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    spec = make_run(workdir)
    build.evaluation("knn", workdir, spec, step=3)
    (workdir / "evaluation" / "old.json").write_text(json.dumps({"title": "Old", "headings": [], "rows": [], "text_columns": []}))
    knn = json.loads((workdir / "evaluation" / "knn.json").read_text())
    assert knn["about"]["step"] == 3
    for step, shown in ((3, True), (5, False)):
        out = tmp_path / f"at{step}"
        assert run("export", "--workdir", str(workdir), "--step", str(step), "--to", "hub", "--output", str(out)) == 0
        text = section((out / "README.md").read_text(), "Measured")
        rows = [f"| {' | '.join(row)} |" for row in [knn["headings"], *knn["rows"]]]
        assert all((row in text.splitlines()) == shown for row in rows)
        assert (f"{knn['title']}. Step 3; data `npz` `images.npz`, splits `train`, `test`." in text) == shown
        assert text.startswith("Not evaluated.") != shown
        left = "old" if shown else "knn, old"
        assert text.endswith(f"Left out, for they are not of this step or do not say of which: {left}.")


def test_weights_of_another_code_bring_no_recipe(tmp_path: Path) -> None:
    save_file(THEIRS, tmp_path / "in.safetensors")
    workdir, out = tmp_path / "run", tmp_path / "out"
    assert run("convert", "--from", "torch", str(tmp_path / "in.safetensors"), "--to", str(workdir), "--config.views.size=16") == 0
    assert run("export", "--workdir", str(workdir), "--to", "hub", "--output", str(out)) == 0
    card = (out / "README.md").read_text()
    assert "converted from `in.safetensors` (PyTorch); its licence holds here too." in card
    assert section(card, "Data") == "Not known: the weights came from another code."
    assert section(card, "Recipe").startswith("Not known: the weights came from another code.\n\nAssumed")
    assert "- PyTorch's padding: half a kernel on each side" in section(card, "Recipe")
    assert "BYOL" not in card
    assert "- byol" not in front(card)


def test_what_a_hub_cannot_take(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    workdir, out = str(tmp_path / "run"), tmp_path / "out"
    make_run(tmp_path / "run")
    out.mkdir()
    (out / "README.md").write_text("by hand")

    def told(output: Path, *flags: str, to: str = "hub") -> str:
        assert run("export", "--workdir", workdir, "--to", to, "--output", str(output), *flags) == 2
        return capsys.readouterr().err

    assert "there is a README.md in it already" in told(out)
    assert (out / "README.md").read_text() == "by hand"
    assert "there is a run in it" in told(tmp_path / "run")
    assert "--licence MIT\nx: y: must be a hub's identifier in small letters" in told(tmp_path / "new", "--licence", "MIT\nx: y")
    assert "--licence mit: stands on the card of --to hub" in told(tmp_path / "x.safetensors", "--licence", "mit", to="safetensors")
    assert "the card tells the run as it was" in told(tmp_path / "new", "--config.data.split=test")
    assert not (tmp_path / "new").exists()


def test_a_cell_cannot_break_its_table() -> None:
    net = Net.of(models.resnet((1,), (4,)))
    facts = {"size": 8, "eval_crop": 1.0, "mean": [0.0], "std": [1.0], "order": "images", "padding": "same"}
    table = {"title": "T", "headings": ["a|b"], "rows": [["1\n2"]], "about": {"step": 1}, "where": "w"}
    card = hub.card_of("x", net, facts, hub.Story("A.", "D.", {}, tables=[table]), "other")
    assert "| a\\|b |\n|---|\n| 1 2 |\n" in card


def test_the_pytorch_code_of_each_build() -> None:
    usual = pytorch_code(Net.of(models.resnet50()), "symmetric", "m.safetensors")
    assert usual == (
        "import torch\nimport torchvision\nfrom safetensors.torch import load_file\nfrom torch import nn\n\n"
        "block = torchvision.models.resnet.Bottleneck\nnet = torchvision.models.ResNet(block, [3, 4, 6, 3])\nnet.fc = nn.Identity()\n"
        'net.load_state_dict(load_file("m.safetensors"), strict=True)\nnet.eval()'
    )
    wide = pytorch_code(Net.of(models.resnet18(width=2)), "same", "m")
    assert wide is not None
    assert "net.layer3 = net._make_layer(block, 512, 2, stride=2)" in wide
    assert "net.layer1[0].downsample = nn.Sequential(nn.Conv2d(128, 128, 1, bias=False), nn.BatchNorm2d(128))" in wide
    assert "pad_as_same" in wide
    assert pytorch_code(Net.of(models.resnet((1,) * 5, (4,) * 5)), "same", "m") is None


CASES = {
    "two stages, small stem, same": {},
    "width 2, ImageNet stem, same": {"stem": "imagenet", "width": 2},
    "bottleneck, symmetric, by shape": {"block": "bottleneck", "padding": "symmetric", "shortcut": "shape", "stem": "imagenet"},
    "four stages, by shape": {"stages": (1, 2, 1, 1), "channels": (4, 4, 8, 8), "shortcut": "shape"},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_card_is_right_about_pytorch(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the card's two blocks. Needs torch, torchvision and safetensors."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    make_run(tmp_path / "run", **CASES[case])
    build.export("hub", tmp_path / "run", build.read_spec(tmp_path / "run"), tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    scope: dict[str, Any] = {"images": images}
    for block in re.findall(r"```python\n(.*?)```", section(Path("README.md").read_text(), "In PyTorch"), re.DOTALL):
        exec(block, scope)
    wanted = byol_jax.load_encoder(tmp_path / "run")(images)
    assert isinstance(scope["embeddings"], torch.Tensor)
    np.testing.assert_allclose(scope["embeddings"].numpy(), wanted, rtol=1e-4, atol=1e-4 * np.sqrt(np.mean(wanted**2)))


def test_a_network_without_torchvisions_names_has_no_hub(tmp_path: Path) -> None:
    make_run(tmp_path / "run", norm="group", channels=(16, 16))
    with pytest.raises(convert.ConvertError, match=r"encoder\.norm = 'group'"):
        build.export("hub", tmp_path / "run", build.read_spec(tmp_path / "run"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
