"""Folders of Hugging Face: hidden states as transformers computed them, folders out and in again, and what is wrong with others."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from byol_jax import convert, models
from byol_jax.convert import huggingface
from byol_jax.models.transformer import stacked, unstacked

GOLDEN = Path(__file__).parents[1] / "golden" / "huggingface_tiny.npz"
SMALL = {"vocab": 12, "layers": 2, "hidden": 8, "heads": 2, "mlp": 12, "positions": 10}
ROBERTA = {**SMALL, "types": 1, "pad": 1, "first_position": 2, "epsilon": 1e-5}


class Golden:
    """One family's part of the golden file."""

    def __init__(self, family: str) -> None:
        with np.load(GOLDEN) as file:
            parts = {name.removeprefix(f"{family}/"): file[name] for name in file if name.startswith(f"{family}/")}
        self.ids, self.hidden, self.mean = parts["ids"], parts["hidden"], parts["mean"]
        self.config = json.loads(str(parts["config"]))
        self.weights = {name.removeprefix("weights/"): value for name, value in parts.items() if name.startswith("weights/")}

    def folder(self, path: Path, **changes: Any) -> Path:
        """As transformers saves it; ``changes`` of its config."""
        (path / "config.json").write_text(json.dumps(self.config | changes))
        save_file(self.weights, path / "model.safetensors")
        return path


def states(fields: dict[str, Any], variables: Any, ids: np.ndarray, **options: Any) -> np.ndarray:
    module = models.TextEncoder(**fields)
    run = jax.jit(partial(module.apply, train=False, **options))
    return np.asarray(run(variables, ids))


def drawn(fields: dict[str, Any]) -> Any:
    """Variables of a ``TextEncoder``, every leaf random."""
    module, draw = models.TextEncoder(**fields), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, 3), np.int32), False))
    return jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), shapes)


def tokenizer(path: Path, pad: int = 0, words: int = 12) -> Path:
    """A tokenizer.json of ``words`` words; BERT's special tokens if pad is 0, else RoBERTa's."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if pad == 0 else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {word: i for i, word in enumerate([*special, *(f"w{i}" for i in range(words - 5))])}
    added = [{"id": i, "content": word, "special": True} for i, word in enumerate(special)]
    path.write_text(json.dumps({"model": {"type": "WordLevel", "vocab": vocab, "unk_token": special[1]}, "added_tokens": added}))
    return path


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_hidden_states_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    golden = Golden(family)
    fields, variables = huggingface.read(golden.folder(tmp_path))
    assert (fields["pad"], fields["first_position"], fields["pooling"]) == ((0, 0, "mean") if family == "bert" else (1, 2, "mean"))
    hidden = states(fields, variables, golden.ids, method="hidden_states")
    real = golden.ids != fields["pad"]
    assert real.sum() < real.size
    np.testing.assert_allclose(hidden[real], golden.hidden[real], atol=1e-4)
    assert golden.hidden.std() > 0.5
    np.testing.assert_allclose(states(fields, variables, golden.ids), golden.mean, atol=1e-4)


def test_names_with_a_prefix_old_norms_heads_and_half_precision(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a BERT that began in TensorFlow is kept, with its pretraining heads; in float16."""
    golden = Golden("bert")
    plain = huggingface.read(golden.folder(tmp_path))[1]
    old = {f"bert.{name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}": tensor
           for name, tensor in golden.weights.items() if "pooler" not in name}  # fmt: skip
    extra = {"cls.predictions.bias": np.zeros(40), "bert.pooler.dense.bias": np.zeros(24), "bert.embeddings.position_ids": np.arange(12)}
    save_file({name: tensor.astype(np.float16) for name, tensor in (old | extra).items()}, tmp_path / "model.safetensors")
    with caplog.at_level(logging.INFO, "byol_jax.convert"):
        _, variables = huggingface.read(tmp_path)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b.astype(np.float16).astype(np.float32)), variables, plain)
    assert caplog.messages == [f"{tmp_path}: left out cls, pooler"]


def test_shards(tmp_path: Path) -> None:
    golden = Golden("bert")
    wanted = huggingface.read(golden.folder(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    names = sorted(golden.weights)
    shards = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for shard, inside in shards.items():
        save_file({name: golden.weights[name] for name in inside}, tmp_path / shard)
    index = {"weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    jax.tree.map(np.testing.assert_array_equal, huggingface.read(tmp_path), wanted)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(convert.ConvertError, match=r"model-00002-of-00002\.safetensors: there is no such file"):
        huggingface.read(tmp_path)


@pytest.mark.parametrize("fields", [SMALL, ROBERTA], ids=["bert", "roberta"])
@pytest.mark.parametrize("scan", [False, True])
def test_written_and_read_again(fields: dict[str, Any], scan: bool, tmp_path: Path) -> None:
    """Bit for bit; a network in a loop is written as the same one in layers."""
    fields = {**fields, "pooling": "cls", "dropout": 0.25, "scan": scan}
    variables = drawn(fields)
    assert ("blocks" in variables["params"]["stack"]) == scan
    written = huggingface.write(tmp_path / "out", fields, variables, tokenizer(tmp_path / "t.json", fields.get("pad", 0)), 8)
    assert {path.relative_to(tmp_path / "out") for path in written} == {
        path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    found, again = huggingface.read(tmp_path / "out")
    full = models.TextEncoder(**fields)
    assert models.TextEncoder(**found, scan=scan) == full
    plain = {**variables["params"], "stack": unstacked(variables["params"]["stack"])}
    jax.tree.map(np.testing.assert_array_equal, again["params"], plain)
    jax.tree.map(np.testing.assert_array_equal, stacked(again["params"]["stack"]), stacked(plain["stack"]))


def test_what_is_written(tmp_path: Path) -> None:
    variables = drawn(SMALL)
    huggingface.write(tmp_path, SMALL, variables, tokenizer(tmp_path / "t.json"), 7)

    def content(name: str) -> Any:
        return json.loads((tmp_path / name).read_text())

    config = content("config.json")
    assert (config["model_type"], config["architectures"], config["vocab_size"], config["layer_norm_eps"]) == (
        "bert",
        ["BertModel"],
        12,
        1e-12,
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    assert content("special_tokens_map.json") == special
    assert content("tokenizer_config.json") == {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 7} | special
    assert content("sentence_bert_config.json") == {"max_seq_length": 7, "do_lower_case": False}
    assert [(entry["path"], entry["type"].split(".")[-1]) for entry in content("modules.json")] == [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
    ]
    assert {key for key, value in content("1_Pooling/config.json").items() if value is True} == {"pooling_mode_mean_tokens"}
    assert content("tokenizer.json") == content("t.json")
    tensors = load_file(tmp_path / "model.safetensors")
    query = variables["params"]["stack"]["block_1"]["attention"]["query"]["kernel"]  # [in, heads, out of a head]
    assert tensors["encoder.layer.1.attention.self.query.weight"][5, 3] == query[3, 1, 1]  # row 5: the second of head 1
    assert tensors["encoder.layer.0.intermediate.dense.weight"].shape == (12, 8)
    assert not list(tmp_path.glob("*.partial"))


def spoilt(path: Path, **tensors: np.ndarray | None) -> None:
    """The folder's tensors with some in place of others; None removes one."""
    kept = load_file(path / "model.safetensors")
    for name, tensor in tensors.items():
        kept.pop(name, None)
        if tensor is not None:
            kept[name] = tensor
    save_file(kept, path / "model.safetensors")


def test_tensors_that_do_not_fit_are_all_named(tmp_path: Path) -> None:
    Golden("bert").folder(tmp_path)
    spoilt(
        tmp_path,
        **{
            "encoder.layer.1.output.dense.bias": None,
            "encoder.layer.2.output.dense.bias": np.zeros(24, np.float32),
            "embeddings.position_embeddings.weight": np.zeros((8, 24), np.float32),
        },
    )
    with pytest.raises(convert.ConvertError, match=r": 3 tensor\(s\) do not fit") as told:
        huggingface.read(tmp_path)
    for part in (
        "encoder.layer.1.output.dense.bias is missing",
        "encoder.layer.2.output.dense.bias is not of this architecture",
        "embeddings.position_embeddings.weight is [8, 24], where config.json says [12, 24]",
    ):
        assert part in str(told.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "distilbert"}, r"model_type = 'distilbert'; this reads bert \(MiniLM too\), roberta, xlm-roberta"),
        ({"position_embedding_type": "relative_key"}, r"position_embedding_type = 'relative_key' must be 'absolute'"),
        (
            {"is_decoder": True, "hidden_act": "silu"},
            r"is_decoder = true: a decoder is no encoder; hidden_act = 'silu' must be one of gelu",
        ),
    ],
)
def test_other_architectures_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match=message):
        huggingface.read(Golden("bert").folder(tmp_path, **changes))


def test_folders_that_hold_no_model(tmp_path: Path) -> None:
    def told(message: str) -> None:
        with pytest.raises(convert.ConvertError, match=message):
            huggingface.read(tmp_path)

    told(r"config\.json: there is no such file; a model's folder has config\.json and model\.safetensors")
    (tmp_path / "config.json").write_text("{")
    told(r"config\.json: is not JSON")
    (tmp_path / "config.json").write_text("[]")
    told(r"config\.json: must hold a JSON object")
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": 3}')
    told(r"num_hidden_layers is missing; hidden_size is missing")
    Golden("bert").folder(tmp_path)
    save_file({"something": np.zeros(2)}, tmp_path / "model.safetensors")
    told(r"has no embeddings\.word_embeddings\.weight .* but something, \.\.\.")
    (tmp_path / "model.safetensors").write_bytes(b"no")
    told(r"model\.safetensors: is not a whole \.safetensors file")
    (tmp_path / "model.safetensors").unlink()
    told(r"there is no model\.safetensors in it")
    (tmp_path / "pytorch_model.bin").touch()
    told(r"pytorch_model\.bin only, which can hold code; save them as safetensors first: transformers\.AutoModel")


def test_the_pooling_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Golden("bert").folder(tmp_path)
    (tmp_path / "1_Pooling").mkdir()

    def pooling(**config: Any) -> str:
        (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(config))
        return str(huggingface.read(tmp_path)[0]["pooling"])

    assert pooling(pooling_mode_cls_token=True, pooling_mode_mean_tokens=False) == "cls"
    assert pooling(pooling_mode="mean") == "mean"  # as newer versions may say it
    with pytest.raises(convert.ConvertError, match=r"pools by pooling_mode_max_tokens; this reads one of pooling_mode_mean_tokens"):
        pooling(pooling_mode_max_tokens=True)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{kind}"} for kind in ("Pooling", "Dense")]))
    with caplog.at_level(logging.WARNING, "byol_jax.convert"):
        pooling(pooling_mode_cls_token=True)
    assert caplog.messages == [f"{tmp_path}: left out the module Dense"]


@pytest.mark.parametrize(
    ("fields", "words", "length", "message"),
    [
        ({"pooling": "attention"}, 12, 8, r"pooling = 'attention': .* train with mean or cls"),
        ({"first_position": 3}, 12, 7, r"first_position = 3: BERT has 0, RoBERTa pad \+ 1 = 1"),
        ({}, 12, 11, r"max_length = 11: must be from 1 to the 10 places"),
        ({}, 13, 8, r"t\.json: has ids up to 12, the encoder only 12 tokens"),
        ({"pad": 11}, 11, 8, r"t\.json: has no token of id 11, which the encoder takes for padding"),
        ({"mlp": 16}, 12, 8, r"params/stack/block_0/mlp_0/kernel: must be \[8, 16\], is \[8, 12\]"),
        ({"layers": 3}, 12, 8, r"params/stack/block_2/attention/query/kernel: must be \[8, 2, 4\], is missing"),
    ],
)
def test_what_cannot_be_written(fields: dict[str, Any], words: int, length: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(convert.ConvertError, match=message):
        huggingface.write(tmp_path / "out", SMALL | fields, drawn(SMALL), tokenizer(tmp_path / "t.json", words=words), length)
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(convert.ConvertError, match="there is a run in it; take another folder"):
        huggingface.write(tmp_path, SMALL, drawn(SMALL), tokenizer(tmp_path / "t.json"), 8)
