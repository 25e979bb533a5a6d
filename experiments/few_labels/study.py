"""Few labels of Fashion-MNIST: a linear probe, fine-tuning, BYOL and labels together, labels alone.

    python -m experiments.few_labels.study --workdir runs/few --output experiments/few_labels/results.jsonl

One line of JSON for each seed, share of the labels and way of using them; lines that stand in the output already are not made again, and
a run that was cut goes on. Which images are labelled depends on the seed: seed s has those from 10 s % of the fixed shuffled order on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax import build, config, data, evaluate
from byol_jax.evaluate.finetune import Setting
from byol_jax.train import Run

SHARES = (1, 10)  # % of the labels
STEPS = {1: 400, 10: 1000}  # of fine-tuning and of labels alone
RATES = (0.2, 0.8)  # likewise, one is chosen on HELD
HELD = "train[-1000:]"
FIXED = {
    "encoder.channels": "(32, 64)",
    "epochs": "None",
    "steps": "1000",
    "optimizer.warmup_epochs": "None",
    "optimizer.warmup_steps": "100",
    "evaluation.every_epochs": "0",
}
Numbers = dict[str, Any]


def labelled(seed: int, share: int) -> str:
    """The split whose labels are known."""
    return f"train[{10 * seed}%:{10 * seed + share}%]"


def spec(seed: int, share: int | None = None) -> config.Spec:
    """BYOL alone; with a share, BYOL and that share of the labels together."""
    changes = {**FIXED, "seed": str(seed)}
    if share is None:
        return config.load("configs/fashion_mnist.py", changes.items())
    parts = ({"weight": 3, "labels": False}, {"weight": 1, "split": labelled(seed, share)})
    return config.load("configs/fashion_mnist.py:joint", {**changes, "data.mix": repr(parts)}.items())


def source(split: str) -> data.Source:
    """Images of a split."""
    part = data.parse_split(split)
    return data.sliced(data.idx(str(spec(0).data.path), part.name), part)


def seen(encoder: evaluate.Encoder, share: int, seed: int) -> tuple[evaluate.Features, evaluate.Features]:
    return evaluate.features(encoder, source(labelled(seed, share))), evaluate.features(encoder, source("test"))


def probed(encoder: evaluate.Encoder, share: int, seed: int) -> float:
    """Test accuracy of logistic regression on frozen features; its penalty is chosen on a fifth of the labelled images."""
    return evaluate.linear_features(*seen(encoder, share, seed), seed=seed).top1


def tuned(encoder: evaluate.Encoder, share: int, seed: int, folder: Path) -> Numbers:
    """Test accuracy of the whole network, trained with the labels from where it stands."""
    settings = [Setting(rate, steps=STEPS[share]) for rate in RATES]
    sources = (source(labelled(seed, share)), source(HELD), source("test"))
    found = evaluate.fine_tune(encoder, *sources, settings=settings, batch_size=64, seed=seed, folder=folder)
    return {"test_top1": found.top1, "setting": found.choice}


def headed(run: Run) -> float:
    """Test accuracy of the linear head that was trained along."""
    test = evaluate.features(run.encoder(), source("test"))
    logits = test.embedding @ np.asarray(run.state.probe["kernel"]) + np.asarray(run.state.probe["bias"])
    return float((logits.argmax(-1) == test.label).mean())


def ways(seed: int, share: int, workdir: Path) -> Iterator[tuple[str, Callable[[], Numbers]]]:
    """Each way of using the labels, and what measures it."""

    def byol() -> evaluate.Encoder:
        return build.pretrain(spec(seed), workdir / f"byol_{seed}").encoder()

    def joint() -> Run:
        return build.pretrain(spec(seed, share), workdir / f"joint_{seed}_{share}")

    def scratch() -> evaluate.Encoder:
        return evaluate.Encoder.untrained(build.encoder(spec(seed)), spec(seed).views.recipe(), seed=seed)

    yield "joint, its own head", lambda: {"test_top1": headed(joint())}
    yield "joint, a probe on it", lambda: {"test_top1": probed(joint().encoder(), share, seed)}
    yield "BYOL, probe", lambda: {"test_top1": probed(byol(), share, seed)}
    yield "BYOL, fine-tuned", lambda: tuned(byol(), share, seed, workdir / f"tuned_{seed}_{share}")
    yield "labels alone", lambda: tuned(scratch(), share, seed, workdir / f"alone_{seed}_{share}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="lines are added")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    known = [json.loads(line) for line in args.output.read_text().splitlines()] if args.output.is_file() else []
    done = {(line["seed"], line["share"], line["what"]) for line in known}
    for seed in range(args.seeds):
        for share in SHARES:
            for what, measure in ways(seed, share, args.workdir):
                if (seed, share, what) not in done:
                    began = time.monotonic()
                    line = {"what": what, "share": share, "seed": seed, **measure(), "seconds": round(time.monotonic() - began)}
                    print(json.dumps(line), flush=True)
                    with args.output.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
