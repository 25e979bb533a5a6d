"""Mispaired translations: BYOL goes on from trusted pairs to others of which a share is broken. Does it help to drop what agrees least?

    python -m experiments.denoising.translations runs/data/debian experiments/denoising/translations.jsonl

View 1 is English, view 2 German. One line of JSON for each seed, share and way; what stands in the output already is not made again.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

import byol_jax as byol
from byol_jax.data import Tokenizer
from byol_jax.evaluate import nearest
from byol_jax.method.denoise import Denoised, bounded, of_pairs

LENGTH, BATCH, TESTS = 16, 128, 1000
FIRST, SECOND = 600, 400  # steps on trusted pairs, then on the others
RATES = (2e-3, 1e-3)  # the peaks
WARMUP = 0.25  # share of the steps
Numbers = dict[str, Any]
Pool = tuple[np.ndarray, np.ndarray]  # rows of tokens of the English and of the German text of each pair

WAYS: dict[str, Any] = {
    "plain": lambda share: byol.regression_loss,
    "dropped": lambda share: Denoised(share / 100 if share else 0.1, decay=0.9),
    "bounded": lambda share: of_pairs(bounded(1.0)),
    "sorted out": lambda share: byol.regression_loss,  # by someone who knows: the broken pairs are not there
}
POINTS = [
    *((0, way) for way in ("plain", "dropped", "bounded")),
    *((share, way) for share in (10, 20) for way in ("plain", "dropped", "sorted out")),
    *((40, way) for way in WAYS),
]


def pools(folder: Path) -> tuple[Tokenizer, Pool, Pool, Pool]:
    """(tokenizer, trusted pairs, the others, those to test with): the same for all seeds."""
    words = Tokenizer(folder / "tokenizer.json")
    rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    both = [words.rows([row[language] for row in rows], LENGTH) for language in ("english", "german")]
    order = np.random.default_rng(0).permutation(len(rows))
    middle = TESTS + (len(rows) - TESTS) // 2
    trusted, others, test = ((both[0][part], both[1][part]) for part in (order[TESTS:middle], order[middle:], order[:TESTS]))
    return words, trusted, others, test


def broken(pool: Pool, share: int, seed: int) -> tuple[Pool, np.ndarray]:
    """(the pool with the German texts of ``share`` per cent of its pairs exchanged among these, which pairs they are)."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(pool[0]))[: round(len(pool[0]) * share / 100)]
    german = pool[1].copy()
    german[chosen] = pool[1][np.roll(chosen, 1)]
    return (pool[0], german), chosen


def method(words: Tokenizer, loss: Any) -> byol.Byol:
    encoder = byol.models.TextEncoder(vocab=words.vocab, pad=words.special.pad, layers=1, hidden=128, heads=2, mlp=256, positions=64)
    heads = {name: byol.MLP(hidden=512, out=128) for name in ("projector", "predictor")}
    return byol.Byol(encoder=encoder, loss=loss, **heads)


def batches(pool: Pool, steps: int, seed: int) -> Iterator[dict[str, np.ndarray]]:
    """Whole epochs in a random order each, one after the other."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(pool[0])) for _ in range(steps * BATCH // len(pool[0]) + 1)])
    for step in range(steps):
        chosen = order[step * BATCH : (step + 1) * BATCH]
        yield {"view1": pool[0][chosen], "view2": pool[1][chosen]}


def train(of: byol.Byol, state: Any, pool: Pool, steps: int, rate: float, seed: int) -> Any:
    """The state after so many steps more, with a fresh optimizer and the loss's memory fresh."""
    tx = byol.adamw(optax.warmup_cosine_decay_schedule(0.0, rate, round(WARMUP * steps), steps), weight_decay=0.01)
    example = {"view1": pool[0][:BATCH], "view2": pool[1][:BATCH]}
    fresh = byol.init(of, tx, jax.random.key(seed), example)
    # copies: a step takes its state's buffers
    kept = {} if state is None else {name: jax.tree.map(lambda x: x.copy(), getattr(state, name)) for name in ("online", "target")}
    state = dataclasses.replace(fresh, **kept)
    step = jax.jit(byol.make_train_step(of, tx, ema=byol.ema_decay(0.99, steps)), donate_argnums=0)
    for batch in batches(pool, steps, seed):
        state, _ = step(state, batch)
    return state


def outputs(of: byol.Byol, variables: Any, rows: np.ndarray) -> byol.Outputs:
    apply = jax.jit(of.network().apply, static_argnums=2)
    found = [apply(variables, part, False) for part in np.split(rows, range(500, len(rows), 500))]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *found)


def retrieval(of: byol.Byol, state: Any, test: Pool) -> float:
    """Share of texts whose translation has the nearest embedding of all test texts in the other language, mean of both directions."""
    english, german = (outputs(of, state.online, rows).embedding for rows in test)
    right = [nearest(a, b, k=1)[1][:, 0] == np.arange(len(a)) for a, b in ((english, german), (german, english))]
    return float(np.mean(right))


def precision(of: byol.Byol, state: Any, pool: Pool, chosen: np.ndarray) -> float:
    """Of the pairs whose target projections agree least, as many as are broken: the share that is."""
    first, second = (outputs(of, state.target, rows).projection for rows in pool)
    cosine = np.sum(first * second, axis=1) / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))
    return float(np.isin(np.argsort(cosine)[: len(chosen)], chosen).mean())


def study(folder: Path, output: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    words, trusted, others, test = pools(folder)
    lines = output.read_text(encoding="utf-8").splitlines() if output.is_file() else []
    done = {(line["seed"], line["broken"], line["way"]) for line in map(json.loads, lines)}
    for seed in seeds:
        todo = [point for point in POINTS if (seed, *point) not in done]
        of = method(words, byol.regression_loss)
        base = train(of, None, trusted, FIRST, RATES[0], seed) if todo else None
        for share, way in todo:
            pool, chosen = broken(others, share, seed)
            seen = tuple(np.delete(rows, chosen, axis=0) for rows in pool) if way == "sorted out" else pool
            state = train(method(words, WAYS[way](share)), base, seen, SECOND, RATES[1], seed + 100)
            found: Numbers = {"seed": seed, "broken": share, "way": way, "before": retrieval(of, base, test)}
            found["retrieval"] = retrieval(of, state, test)
            found |= {"precision": precision(of, state, pool, chosen)} if share else {}
            with output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(found, flush=True)


if __name__ == "__main__":
    study(Path(sys.argv[1]), Path(sys.argv[2]))
