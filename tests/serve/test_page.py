"""The page, as people use it: in headless Chromium, before a real process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byol_jax import build, evaluate
from byol_jax.evaluate.linear import Classifier
from tests.serve.asking import encoded, files
from tests.serve.browser import Browser, browser, missing
from tests.serve.runs import image_run, serving, text_run

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]


def headings(window: Browser) -> list[str]:
    return window.run("return [...document.querySelectorAll('#results h2')].map(h => h.textContent)")


def shown(window: Browser) -> list[str]:
    return window.run("return [...document.querySelectorAll('button:not([hidden])')].map(b => b.textContent + (b.disabled ? ' off' : ''))")


def test_images(tmp_path: Path) -> None:
    workdir = image_run(tmp_path)
    images = files(tmp_path / "in", {"one.png": encoded(16, 16, seed=1), "<b>two.jpg": encoded(40, 30, seed=2, kind="JPEG")})
    width = len(build.load_encoder(workdir)(np.zeros((1, 16, 16, 3), np.uint8))[0])
    evaluate.save_probe(tmp_path / "p.npz", Classifier(np.zeros((width, 4)), np.log([4, 3, 2, 1])), ["cat", "dog", "owl", "<i>eel</i>"])
    with (
        serving(
            workdir, "--probe", str(tmp_path / "p.npz"), "--max-count", "2", "--api-key-file", str(files(tmp_path, {"key": b"k"}) / "key")
        ) as (
            _,
            address,
        ),
        browser() as window,
    ):
        window.open(address)
        assert (
            window.wait("#about", "numbers each")
            == f"An encoder of images: {width} numbers each, step 0. Started with --index finds similar ones too."
        )
        assert shown(window) == ["Embed off", "Classify off"]
        window.write("#files", "\n".join(str(path) for path in sorted((images).iterdir())))
        assert shown(window) == ["Embed", "Classify"]
        window.click("[data-path='/embed']")
        window.wait("#said.bad", "a wrong API key: send the header")
        window.write("#key", "k")
        window.click("[data-path='/embed']")
        window.wait("#said", r"^2 images in \d+ ms$")
        assert headings(window) == ["<b>two.jpg", "one.png"]
        assert window.run("return document.querySelectorAll('#results canvas').length") == 2
        assert f"{width} numbers, length" in window.text("#results")
        window.click("[data-path='/classify']")
        window.wait("#results", r"cat\s+40.0%\s+dog\s+30.0%\s+owl\s+20.0%\s+<i>eel</i>\s+10.0%")
        window.write("#files", str(images / "one.png"))
        window.click("[data-path='/embed']")
        window.wait("#said.bad", "3 images in one request, and more to come; at most 2 are taken")
        assert [line for line in window.complaints() if " 401 " not in line and " 422 " not in line] == []


def test_texts(tmp_path: Path) -> None:
    workdir = text_run(tmp_path)
    known = ["river stone", "<u>winter</u> garden", "paper engine"]
    np.savez(tmp_path / "i.npz", embedding=build.load_sentence_encoder(workdir)(known), text=np.array(known), label=np.array([0, -1, 0]))
    with serving(workdir, "--index", str(tmp_path / "i.npz")) as (process, address), browser() as window:
        window.open(address)
        window.wait("#about", "An encoder of texts: 16 numbers each, step 0. Started with --probe classifies too.")
        assert shown(window) == ["Embed off", "Find similar off"]
        window.write("#texts", "<u>winter</u> garden\n\npaper engine")
        window.click("[data-path='/similar']")
        window.wait("#said", r"^2 texts in \d+ ms$")
        assert headings(window) == ["<u>winter</u> garden", "paper engine"]
        tops = window.run("return [...document.querySelectorAll('#results table')].map(t => t.rows[0].textContent)")
        assert tops == ["<u>winter</u> garden1.000", "paper engine01.000"]
        assert window.complaints() == []
        process.kill()
        process.wait(10)
        window.click("[data-path='/embed']")
        window.wait("#said.bad", "The service does not answer. Is it still running?")
