"""The flags of ``evaluate``, which are many: the kinds, what some of them take, and how lists of numbers are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable

KINDS = {
    "knn": "weighted k-NN",
    "linear": "L-BFGS and SGD on features computed once",
    "linear_paper": "the paper's SGD from cropped and flipped images",
    "collapse": "spread and rank",
    "fewlabels": "against raw pixels and the untrained network",
    "semisup": "the whole network fine-tuned on a hundredth and a tenth of the labels",
    "transfer": "linear classifiers on the paper's twelve other data sets",
    "transfer_finetune": "the whole network fine-tuned on each of them",
    "similarity": "of texts: cosines against human judgements",
    "retrieve": "of texts: documents that answer a query",
}


def evaluations(added: argparse.ArgumentParser) -> None:
    """The kinds of evaluation, and the flags that some of them take: absent ones are not passed on, so defaults stand with the kind."""
    added.add_argument("kind", choices=KINDS, help="; ".join(f"{name}: {text}" for name, text in KINDS.items()))
    flags = added.add_argument_group("options of some kinds", argument_default=argparse.SUPPRESS)
    flags.add_argument(
        "--epochs", type=_numbers(int), help="linear_paper: passes over the training set (80); semisup: to choose among (30,50)"
    )
    flags.add_argument("--batch-size", type=int, help="linear_paper, semisup: 1024; transfer_finetune: 256")
    flags.add_argument(
        "--held-out", type=float, metavar="SHARE", help="of the training set, to choose by (0.01; of fewer than 100,000: 0.1)"
    )
    flags.add_argument("--regularised", action="store_true", help="linear_paper: bounded and penalised logits (Table 7)")
    flags.add_argument("--photometric", action="store_true", help="linear_paper: on the augmentations of pretraining (Table 7)")
    flags.add_argument("--share", type=_numbers(float), help="semisup: of the labels (0.01,0.1)")
    flags.add_argument(
        "--rates",
        type=_numbers(float),
        help="semisup: learning rates to choose among (0.01,0.02,0.05,0.1,0.005); transfer_finetune: 7, 1e-4 to 0.1",
    )
    flags.add_argument(
        "--decays", type=_numbers(float), help="transfer_finetune: weight decays (0 and 7, 1e-6 to 1e-3), divided by the rate"
    )
    flags.add_argument("--penalties", type=_numbers(float), help="transfer: L2 penalties to choose among (45, 1e-6 to 1e5)")
    flags.add_argument("--steps", type=int, help="transfer_finetune: of each training (20000)")
    flags.add_argument("--labels", type=_numbers(int, "all"), help="fewlabels: labels a class, such as 1,2,5,10,20,all (1,10,all)")
    flags.add_argument("--draws", type=int, help="fewlabels: how many times the labels are drawn (3)")
    flags.add_argument("--tasks", type=_names, help="both transfers: some of the twelve, such as cifar10,dtd")
    flags.add_argument("--pairs", metavar="FILE", help="similarity: sentence1, sentence2, score as .tsv, .csv or .jsonl; or tfds:glue/stsb")
    flags.add_argument("--corpus", metavar="DIR", help="retrieve: queries.jsonl, corpus.jsonl and qrels/test.tsv, as BEIR has them")
    flags.add_argument("--k", type=_numbers(int), help="retrieve: documents looked at, for recall (1,5,10,100)")
    flags.add_argument(
        "--data-dir", metavar="DIR", help="both transfers: where prepared data stands ($TFDS_DATA_DIR, ~/tensorflow_datasets)"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(kind: type[int] | type[float], word: str | None = None) -> Callable[[str], tuple[float, ...]]:
    """Reads one number or several, ``1,2,5``; where ``word`` is given, it may be written for 0."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            return tuple(kind(0) if part == word else kind(part) for part in text.split(","))
        except ValueError:
            what = "whole numbers, such as 1,2,5" if kind is int else "numbers, such as 0.01,0.1"
            raise argparse.ArgumentTypeError(f"{text!r}: must be {what}{f' or {word}' if word else ''}") from None

    return numbers
