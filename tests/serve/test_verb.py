"""``byol-jax serve`` as a process: it answers as ``embed`` writes, takes a key, drains at SIGTERM; and what it says to wrong flags."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from byol_jax import build, cli, evaluate
from byol_jax.evaluate.linear import Classifier
from tests.data.words import sentences
from tests.serve.runs import ask, serving, text_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_run(tmp_path_factory.mktemp("served"))


def run(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    return int(caught.value.code or 0)


def stalled(address: str, body: bytes) -> socket.socket:
    """A request of which all but the last byte has been sent."""
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[:-1])
    return connection


def answers_still(address: str) -> bool:
    try:
        ask(address, "/healthz")
    except OSError:  # refused, or reset where it was accepted and not read any more
        return False
    return True


def rest(connection: socket.socket) -> bytes:
    found = b""
    with connection:
        while more := connection.recv(65536):
            found += more
    return found


def test_it_answers_as_the_run_s_encoder_and_drains(workdir: Path, tmp_path: Path) -> None:
    known = sentences(20, seed=3)
    expected = build.load_sentence_encoder(workdir)(known, batch_size=32)
    np.savez(tmp_path / "known.npz", embedding=expected, text=np.array(known))
    weights = np.random.default_rng(0).normal(size=(16, 3))
    evaluate.save_probe(tmp_path / "probe.npz", Classifier(weights, np.zeros(3)), ["a", "b", "c"])
    flags = ("--index", str(tmp_path / "known.npz"), "--probe", str(tmp_path / "probe.npz"), "--sizes", "1,4", "--max-count", "20")
    with serving(workdir, *flags) as (process, address):
        assert ask(address, "/healthz")["limits"]["count"] == 20
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda text: ask(address, "/embed", {"texts": [text]})["embeddings"][0], known))
        np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-5)
        found = ask(address, "/similar?k=1", {"texts": known})["results"]
        assert [one["text"] for (one,) in found] == known
        found = ask(address, "/classify?top=1", {"texts": known})["results"]
        assert [one["class"] for (one,) in found] == ["abc"[i] for i in (expected @ weights).argmax(1)]

        body = json.dumps({"texts": known}).encode()
        connections = [stalled(address, body) for _ in range(3)]
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        while answers_still(address):
            time.sleep(0.05)
        assert process.poll() is None  # it waits for those three
        for connection in connections:
            connection.sendall(body[-1:])
        for connection in connections:
            head, _, content = rest(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            np.testing.assert_allclose(json.loads(content)["embeddings"], answers, rtol=1e-4, atol=1e-5)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_it_takes_a_key_and_says_where_it_is(workdir: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("open sesame\n")
    with serving(workdir, "--api-key-file", str(tmp_path / "key"), "--host", "0.0.0.0") as (process, address):
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            ask(address, "/embed", {"texts": ["river"]})
        caught.value.close()
        assert ask(address, "/embed", {"texts": ["river"]}, Authorization="Bearer open sesame")["dimensions"] == 16
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-count", "0"], "--max-count = 0: must be above 0"),
        (["--queue", "3"], "--queue = 3: must be at least count = 32"),
        (["--sizes", "0,8"], "--sizes 0,8: give whole numbers of 1 or more, such as 1,8,32"),
        (["--api-key-file", "nowhere"], "--api-key-file nowhere: there is no such file; write the key into it"),
        (["--index", "nowhere.npz"], "--index nowhere.npz: there is no such file; `byol-jax embed --output nowhere.npz` writes it"),
        (["--probe", "nowhere.npz"], "nowhere.npz: there is no such file; `byol-jax evaluate linear --save nowhere.npz` writes it"),
        (["--whiten"], "--whiten: whitens an index; give --index FILE.npz too"),
        (["--host", "256.0.0.1"], "--host 256.0.0.1 --port 0: cannot listen there"),
        (["--port", "99999"], "--port 99999: cannot listen there"),
    ],
)
def test_wrong_flags(workdir: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("serve", "--workdir", str(workdir), "--port", "0", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run("serve", "--workdir", str(workdir), "--port", str(port)) == 2
    assert f"--host 127.0.0.1 --port {port}: cannot listen there" in capsys.readouterr().err


def test_without_the_extra_it_is_named(workdir: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from byol_jax import cli; cli.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--workdir", str(workdir)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "serve: needs uvicorn, which is not installed: pip install 'byol-jax[serve]'" in done.stderr
