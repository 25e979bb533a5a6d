"""The endpoints: their answers equal the encoder's, whatever the form of the request, and nothing is compiled for them."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from byol_jax import data, evaluate
from byol_jax.data.single import evaluated
from byol_jax.evaluate import Encoder, Probe, SentenceEncoder
from byol_jax.serve import Index, Limits, Model
from byol_jax.serve.app import PAGE, Service, create_app
from byol_jax.serve.model import plausible
from tests.data.words import WORDS, sentences
from tests.serve.asking import asked, encoded, files, metric, post

IMAGES = [encoded(20, 14, seed=1), encoded(8, 8, seed=2, kind="BMP"), encoded(31, 40, seed=3, kind="JPEG"), encoded(9, 9, kind="WEBP")]
TEXTS = ["river stone light", "winter", " ".join([WORDS] * 5), "a new wind and silver, " * 3]


def embeddings(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    found = np.array(answer.json()["embeddings"], np.float32)
    assert answer.json()["dimensions"] == found.shape[1]
    return found


def test_embeddings_of_images_equal_those_of_embed(images: Model, image_encoder: Encoder, tmp_path: Path) -> None:
    """Of files of every format, each form of request; the numbers read back as the float32 they were."""
    suffixes = ("png", "bmp", "jpg", "webp")
    folder = files(tmp_path, {f"in/{i}.{suffix}": image for i, (image, suffix) in enumerate(zip(IMAGES, suffixes, strict=True))})
    evaluate.embed(image_encoder, data.folder(folder / "in"), tmp_path / "e.npz", batch_size=8)
    with np.load(tmp_path / "e.npz") as found:
        expected = found["embedding"]
    service = Service(images, limits=Limits(), index=Index.load(tmp_path / "e.npz"), sizes=(8,))
    in_json = {"images": [base64.b64encode(image).decode() for image in IMAGES]}
    for request in ({"json": in_json}, {"files": [("any", image) for image in IMAGES]}):
        np.testing.assert_array_equal(embeddings(post(service, "/embed", **request)), expected)
    similar = post(service, "/similar?k=1", json=in_json).json()["results"]
    assert [one["path"] for (one,) in similar] == [f"{i}.{suffix}" for i, suffix in enumerate(suffixes)]
    raw = post(service, "/embed", content=IMAGES[2], headers={"Content-Type": "image/jpeg"})
    np.testing.assert_allclose(embeddings(raw), expected[2:3], rtol=2e-6, atol=2e-6)


def test_embeddings_of_texts_equal_the_encoder_s(texts: Model, sentence_encoder: SentenceEncoder) -> None:
    expected = sentence_encoder(TEXTS)
    assert len(set(expected.sum(1))) == len(TEXTS)
    service = Service(texts, limits=Limits())
    np.testing.assert_array_equal(embeddings(post(service, "/embed", json={"texts": TEXTS})), expected)
    alone = post(service, "/embed", content=TEXTS[1], headers={"Content-Type": "text/plain; charset=utf-8"})
    np.testing.assert_array_equal(embeddings(alone), expected[1:2])


def test_padding_and_company_change_no_bit(images: Model) -> None:
    """Four images a device, in one compiled size: alone, first, last, and between others."""
    service = Service(images, limits=Limits(), sizes=(32,))
    one, *others = [encoded(seed=seed) for seed in range(32)]
    alone = embeddings(post(service, "/embed", files=[("image", one)]))[0]
    for before in (0, 1, 7, 31):
        company = [*others[:before], one, *others[before:31]]
        np.testing.assert_array_equal(embeddings(post(service, "/embed", files=[("image", image) for image in company]))[before], alone)


def test_every_number_of_images_compiles_nothing(images: Model, image_encoder: Encoder) -> None:
    """From 1 to 20, of one caller, and of 20 at once; another size of a batch rounds otherwise."""
    many = [encoded(seed=seed) for seed in range(20)]
    expected = image_encoder(np.stack([evaluated(image, "it", image_encoder.image_views) for image in many]))
    service = Service(images, limits=Limits(), sizes=(1, 8, 32))
    assert set(service.batcher.plans[8, 8, 3]) == {8, 32}  # eight devices share a batch

    async def scenario(client: httpx.AsyncClient) -> None:
        for count in range(1, 21):
            answer = await client.post("/embed", files=[("image", image) for image in many[:count]])
            np.testing.assert_allclose(embeddings(answer), expected[:count], rtol=2e-6, atol=2e-6)
        answers = await asyncio.gather(*(client.post("/embed", content=one, headers={"Content-Type": "image/png"}) for one in many))
        np.testing.assert_allclose(np.concatenate([embeddings(answer) for answer in answers]), expected, rtol=2e-6, atol=2e-6)

    asked(service, scenario)
    assert metric(service, "byol_rows_total") == 210 + 20
    assert metric(service, "byol_batch_rows_count") < 20 + 20  # 20 callers at once are fewer calls
    assert metric(service, "byol_compilations_total") == 0


def test_texts_of_every_length_compile_nothing(texts: Model, sentence_encoder: SentenceEncoder) -> None:
    service = Service(texts, limits=Limits(), sizes=(1, 16))
    assert sorted(service.batcher.plans) == [(16,), (32,), (40,)]
    asked_for = [" ".join(["stone"] * n) for n in range(1, 51)]
    expected = sentence_encoder(asked_for)

    async def scenario(client: httpx.AsyncClient) -> None:
        answers = await asyncio.gather(*(client.post("/embed", json={"texts": [text]}) for text in asked_for))
        np.testing.assert_array_equal(np.concatenate([embeddings(answer) for answer in answers]), expected)

    asked(service, scenario)
    assert metric(service, "byol_compilations_total") == 0


def test_the_counter_of_compilations_counts() -> None:
    """Else the zeros above would say nothing."""
    import jax
    import jax.numpy as jnp

    from byol_jax.serve.metrics import Metrics

    counters = Metrics(lambda: 0, lambda: 0)
    stop = counters.watch_compilations()
    jax.jit(lambda x: x * 3.25 + 17)(jnp.ones(11)).block_until_ready()
    seen = counters.registry.get_sample_value("byol_compilations_total")
    assert seen is not None
    assert seen >= 1
    stop()
    jax.jit(lambda x: x * 3.25 + 18)(jnp.ones(12)).block_until_ready()
    assert counters.registry.get_sample_value("byol_compilations_total") == seen


def test_classify_by_hand(texts: Model, sentence_encoder: SentenceEncoder) -> None:
    """Logits log 3 for each "winter", 0 and 0: probabilities 3/5, 1/5, 1/5; with two of them 9/11."""
    vocab = sentence_encoder(["winter"]).shape[1]
    weights = np.zeros((vocab, 3), np.float32)
    weights[:, 1] = np.log(3) * sentence_encoder(["winter"])[0]
    service = Service(texts, limits=Limits(), probe=Probe(weights, np.zeros(3, np.float32), ["a", "b", "c"]))
    two = post(service, "/classify?top=2", json={"texts": ["winter", "winter winter"]}).json()["results"]
    assert [[(one["label"], one["class"]) for one in found] for found in two] == [[(1, "b"), (0, "a")]] * 2
    assert [[one["probability"] for one in found] for found in two] == [
        pytest.approx([3 / 5, 1 / 5], rel=1e-6),
        pytest.approx([9 / 11, 1 / 11], rel=1e-6),
    ]


def test_similar_by_hand(texts: Model, sentence_encoder: SentenceEncoder, tmp_path: Path) -> None:
    """Cosines of counts of words: 1, 1/sqrt 2, 0; the earlier of two equals first; labels of -1 are not told."""
    known = ["river winter", "stone", "winter", "winter winter"]
    columns = {"embedding": sentence_encoder(known), "text": np.array(known), "label": np.array([0, 1, -1, 1])}
    np.savez(tmp_path / "known.npz", **columns, index=np.arange(4), class_names=np.array(["x", "y"]))
    service = Service(texts, limits=Limits(), index=Index.load(tmp_path / "known.npz"))
    (found,) = post(service, "/similar?k=3", json={"texts": ["winter"]}).json()["results"]
    assert [one.pop("cosine") for one in found] == pytest.approx([1, 1, 0.5**0.5], abs=1e-6)
    assert found == [
        {"text": "winter", "index": 2},
        {"text": "winter winter", "index": 3, "label": 1, "class": "y"},
        {"text": "river winter", "index": 0, "label": 0, "class": "x"},
    ]


def test_an_index_of_names_that_are_not_utf8_is_answered(texts: Model, sentence_encoder: SentenceEncoder, tmp_path: Path) -> None:
    columns = {"embedding": sentence_encoder(["winter"]), "path": np.array(["\udcfea/\udcff.png"]), "label": np.array([0])}
    np.savez(tmp_path / "old.npz", **columns, class_names=np.array(["\udcfea"]))
    service = Service(texts, limits=Limits(), index=Index.load(tmp_path / "old.npz"))
    answer = post(service, "/similar?k=1", json={"texts": ["winter"]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["results"] == [[{"cosine": pytest.approx(1), "path": r"\xfea/\xff.png", "label": 0, "class": r"\xfea"}]]


@pytest.mark.parametrize("k", [1, 5, 39, 40, 50])
def test_the_index_is_exact(k: int) -> None:
    """Of 40 vectors whose cosines are halves and ones exactly, so that many are equal."""
    axes = np.concatenate([np.eye(4), -np.eye(4), np.array(list(itertools.product((-0.5, 0.5), repeat=4)))]).astype(np.float32)
    bank = axes[np.random.default_rng(0).integers(0, len(axes), 40)]
    index = Index(bank, {"index": np.arange(40)})
    for found, row in zip(index.nearest(3 * axes, k), axes @ bank.T, strict=True):
        places = np.argsort(-row, kind="stable")[:k]
        assert [one["index"] for one in found] == places.tolist()
        assert [one["cosine"] for one in found] == row[places].tolist()


def test_a_whitened_index_compares_as_the_house_s_whitening(sentence_encoder: SentenceEncoder, texts: Model, tmp_path: Path) -> None:
    known = sentences(40, seed=5)
    embed = evaluate.Whitened(sentence_encoder, known)
    np.savez(tmp_path / "known.npz", embedding=sentence_encoder(known), text=np.array(known))
    service = Service(texts, limits=Limits(), index=Index.load(tmp_path / "known.npz", whiten=True))
    (found,) = post(service, "/similar?k=40", json={"texts": ["river stone"]}).json()["results"]
    cosine, index = evaluate.nearest(embed(["river stone"]), embed(known), k=40)
    assert [one["text"] for one in found][:5] == [known[i] for i in index[0, :5]]
    assert [one["cosine"] for one in found] == pytest.approx(cosine[0].tolist(), abs=1e-5)
    np.savez(tmp_path / "one.npz", embedding=np.ones((1, 4)))
    with pytest.raises(ValueError, match="--whiten: learns from two embeddings or more"):
        Index.load(tmp_path / "one.npz", whiten=True)


def test_without_index_or_probe_the_flag_is_named(texts: Model) -> None:
    service = Service(texts, limits=Limits())
    for path, code, flag in (("/classify", "no_probe", "--probe"), ("/similar", "no_index", "--index")):
        answer = post(service, path, json={"texts": ["a"]})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == code
        assert flag in answer.json()["error"]["message"]


def test_files_of_another_run_are_refused(texts: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--probe: is of embeddings of 7 dimensions, the run's have 395; take one of this run"):
        Service(texts, limits=Limits(), probe=Probe(np.zeros((7, 2), np.float32), np.zeros(2, np.float32), ["a", "b"]))
    with pytest.raises(ValueError, match=r"--index: is of embeddings of 7 dimensions"):
        Service(texts, limits=Limits(), index=Index(np.ones((4, 7), np.float32), {}))
    (tmp_path / "x.npz").write_text("no")
    np.savez(tmp_path / "y.npz", embedding=np.full((3, 2), np.nan), label=np.zeros(3))
    np.savez(tmp_path / "z.npz", embedding=np.array([{}], object))
    for name, message in (("w", "there is no such file"), ("x", "is no .npz of"), ("y", "finite embeddings"), ("z", "is no .npz of")):
        with pytest.raises(ValueError, match=message):
            Index.load(tmp_path / f"{name}.npz")


def test_health_metrics_openapi_and_page(texts: Model) -> None:
    service = Service(texts, limits=Limits(), step=7)

    async def scenario(client: httpx.AsyncClient) -> dict[str, httpx.Response]:
        await client.post("/embed", json={"texts": ["river", "stone"]})
        await client.get("/nowhere")
        return {path: await client.get(path) for path in ("/healthz", "/metrics", "/openapi.json", "/")}

    found = asked(service, scenario)
    assert [answer.status_code for answer in found.values()] == [200] * 4
    health: dict[str, Any] = found["/healthz"].json()
    assert health.pop("limits") == vars(Limits())
    told = {"kind": "texts", "dimensions": 395, "step": 7, "classify": False, "similar": False, "key": False}
    assert health == {"status": "ok", **told}
    for line in (
        'byol_requests_total{path="/embed",status="200"} 1.0',
        'byol_requests_total{path="other",status="404"} 1.0',
        'byol_refused_total{code="not_found"} 1.0',
        "byol_rows_total 2.0",
        "byol_held_rows 0.0",
        "byol_compilations_total 0.0",
    ):
        assert line in found["/metrics"].text.splitlines()
    paths = found["/openapi.json"].json()["paths"]
    assert set(paths) == {"/embed", "/classify", "/similar", "/healthz", "/metrics"}
    assert set(paths["/embed"]["post"]["responses"]) == {"200", "401", "404", "408", "413", "415", "422", "503", "504"}
    assert set(paths["/embed"]["post"]["requestBody"]["content"]) == {"text/plain", "application/json"}
    assert "default-src 'none'" in found["/"].headers["Content-Security-Policy"]


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[a-z]", page)
    assert "innerHTML" not in page  # names of files and texts are never read as HTML


def test_openapi_of_images_tells_every_form(images: Model) -> None:
    content = create_app(Service(images, limits=Limits())).openapi()["paths"]["/similar"]["post"]["requestBody"]["content"]
    assert set(content) == {"image/*", "multipart/form-data", "application/json"}
    assert json.dumps(content)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({1: 1.0, 8: 4.0, 32: 16.0}, {1: 1.0, 8: 4.0, 32: 16.0}),
        ({1: 5.0, 8: 4.0, 32: 16.0}, {1: 4.0, 8: 4.0, 32: 16.0}),  # one was disturbed: it takes no longer than eight
        ({1: 1.0, 8: 40.0, 32: 16.0}, {1: 1.0, 8: 8.0, 32: 16.0}),  # eight take no longer than eight times one
    ],
)
def test_times_that_cannot_be(measured: dict[int, float], expected: dict[int, float]) -> None:
    assert plausible(measured) == expected
