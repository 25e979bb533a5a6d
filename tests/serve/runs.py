"""Runs with an untrained encoder in a folder, and ``byol-jax serve`` as a process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from byol_jax import build, config
from byol_jax.build import objects
from byol_jax.checkpoint import Checkpoints
from byol_jax.evaluate import Encoder
from tests import quick
from tests.data.words import learned, sentences

ROOT = Path(__file__).parents[2]


def text_run(folder: Path) -> Path:
    """Of texts of up to 32 tokens, labelled "a" and "b"."""
    lines = [json.dumps({"text": text, "label": "ab"[i % 2]}) + "\n" for i, text in enumerate(sentences(64))]
    (folder / "corpus.jsonl").write_text("".join(lines))
    made = config.default()
    made.batch_size, made.steps = 16, 2
    made.data.update(source="text", path=str(folder / "corpus.jsonl"), test_split="train[75%:]", split="train[:75%]")
    made.text.update(preset="document", tokenizer=str(learned(folder).path), length=32, cache=None)
    made.encoder.name = "transformer"
    made.encoder.transformer.update(layers=1, hidden=16, heads=2, mlp=32, dropout=0.0, attention_dropout=0.0)
    return saved(folder / "run", config.resolve(made.to_dict()))


def image_run(folder: Path) -> Path:
    """Of images of 16 pixels."""
    made = config.default()
    made.batch_size, made.steps = 16, 2
    made.data.update(source="digits", split="train", test_split="test")
    made.views.update(preset="gray", size=16)
    made.encoder.update(name="resnet", block="basic", stages=(1,), channels=(8,), stem="small")
    return saved(folder / "run", config.resolve(made.to_dict()))


def saved(workdir: Path, spec: config.Spec) -> Path:
    variables = Encoder.untrained(objects.encoder(spec), objects.recipe(spec)).variables
    checkpoints = Checkpoints(workdir / "checkpoints", note={})
    checkpoints.save(0, {"online": {kind: {"encoder": tree} for kind, tree in variables.items()}}, force=True)
    checkpoints.close()
    build.claim(workdir, spec)
    return workdir


@contextlib.contextmanager
def serving(workdir: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process of ``byol-jax serve`` when it is ready, and its address; it is killed at the end if it has not left by itself."""
    command = [sys.executable, "-m", "byol_jax", "serve", "--workdir", str(workdir), "--port", "0", *flags]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": quick.FLAGS, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "jax")}
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            found = re.search(r"http://\S+", line)
            assert found, line + process.stderr.read()
            yield process, found[0]
        finally:
            process.kill()


def ask(address: str, path: str, body: Any = None, **headers: str) -> Any:
    """The JSON that the service answers; urllib.error.HTTPError where it is an error."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, content, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
