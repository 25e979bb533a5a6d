"""The flags of each verb: what they are called, what they take, and how lists of numbers are read."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

BENCHES = {
    "step": "a training step, its parts, FLOPs and memory",
    "input": "batches of two views from disk or memory",
    "augment": "the device's part of the views",
    "eval": "the frozen encoder",
}
KINDS = {
    "knn": "weighted k-NN",
    "linear": "L-BFGS and SGD on features computed once",
    "linear_paper": "the paper's SGD from cropped and flipped images",
    "collapse": "spread and rank",
    "fewlabels": "against raw pixels and the untrained network",
    "semisup": "the whole network fine-tuned on a hundredth and a tenth of the labels",
    "transfer": "linear classifiers on the paper's twelve other data sets",
    "transfer_finetune": "the whole network fine-tuned on each of them",
    "robust": "a linear classifier while examples are changed to mislead it",
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
    flags.add_argument("--dropout", type=float, metavar="SHARE", help="semisup: of the embedding, before the classifier (0)")
    flags.add_argument("--label-smoothing", type=float, metavar="SHARE", help="semisup: of the wanted probability, for all classes (0)")
    flags.add_argument(
        "--rates",
        type=_numbers(float),
        help="semisup: learning rates to choose among (0.01,0.02,0.05,0.1,0.005); transfer_finetune: 7, 1e-4 to 0.1",
    )
    flags.add_argument(
        "--decays", type=_numbers(float), help="transfer_finetune: weight decays (0 and 7, 1e-6 to 1e-3), divided by the rate"
    )
    flags.add_argument("--penalties", type=_numbers(float), help="linear, transfer: L2 penalties to choose among (45, 1e-6 to 1e5)")
    flags.add_argument("--steps", type=int, help="transfer_finetune: of each training (20000); robust: of the attack (20)")
    flags.add_argument("--norm", choices=("linf", "l2"), help="robust: what the radius limits, a number or the length of all (linf)")
    flags.add_argument("--radii", type=_numbers(float), help="robust: of images in units of a pixel's range (2/255,4/255,8/255)")
    flags.add_argument("--restarts", type=int, help="robust: starts of the attack, of which the worst counts (1)")
    flags.add_argument("--labels", type=_numbers(int, "all"), help="fewlabels: labels a class, such as 1,2,5,10,20,all (1,10,all)")
    flags.add_argument("--draws", type=int, help="fewlabels: how many times the labels are drawn (3)")
    flags.add_argument("--tasks", type=_names, help="both transfers: some of the twelve, such as cifar10,dtd")
    flags.add_argument("--save", metavar="FILE.npz", help="linear: keep the run's L-BFGS classifier, for `byol-jax serve --probe`")
    flags.add_argument("--pairs", metavar="FILE", help="similarity: sentence1, sentence2, score as .tsv, .csv or .jsonl; or tfds:glue/stsb")
    flags.add_argument("--corpus", metavar="DIR", help="retrieve: queries.jsonl, corpus.jsonl and qrels/test.tsv, as BEIR has them")
    flags.add_argument("--k", type=_numbers(int), help="retrieve: documents looked at, for recall (1,5,10,100)")
    flags.add_argument(
        "--data-dir", metavar="DIR", help="both transfers: where prepared data stands ($TFDS_DATA_DIR, ~/tensorflow_datasets)"
    )


def conversions(converted: argparse.ArgumentParser) -> None:
    converted.add_argument("--from", dest="source", choices=("deepmind", "torch"), required=True, help="the code that wrote it")
    text = "deepmind: pretrain.pkl or linear-eval.pkl of the official BYOL code; torch: a ResNet's .safetensors or .pth"
    converted.add_argument("file", metavar="FILE", help=text)
    converted.add_argument("--to", metavar="DIR", required=True, help="new folder of the run")
    text = "torch: what stands before the layers of the network to take, such as module.encoder_q.; the online one is found if not given"
    converted.add_argument("--prefix", metavar="NAME", help=text)


def exports(exported: argparse.ArgumentParser) -> None:
    text = (
        "safetensors: a ResNet under torchvision's names; stablehlo: pixels to embedding, for jax alone; hub: a folder with a model card; "
        "huggingface: of texts, a folder for transformers and sentence-transformers"
    )
    exported.add_argument(
        "--to",
        choices=("safetensors", "stablehlo", "hub", "onnx", "huggingface"),
        required=True,
        help=f"{text}; how images are prepared stands beside it",
    )
    exported.add_argument("--output", metavar="PATH", required=True, help="where to write it")
    exported.add_argument("--licence", metavar="ID", help="hub: such as apache-2.0; left open if not given")


def compressions(compressed: argparse.ArgumentParser) -> None:
    compressed.add_argument("--to", metavar="DIR", required=True, help="folder of the levels, each a run below it")
    text = "some of channels1 to channels99 and sparse1 to sparse99 (per cent that go), int8, int8qat (channels50,sparse80,int8,int8qat)"
    compressed.add_argument("--levels", type=_names, default=("channels50", "sparse80", "int8", "int8qat"), metavar="LIST", help=text)
    text = "byol: train on as the run did; labels: fine-tune with a classifier (byol)"
    compressed.add_argument("--recover", choices=("byol", "labels"), default="byol", help=text)
    compressed.add_argument("--recover-epochs", type=float, default=10, metavar="N", help="of that training; 0: none (10)")
    compressed.add_argument("--recover-rate", type=float, default=0.5, metavar="FACTOR", help="byol: on the run's learning rate (0.5)")
    compressed.add_argument("--calibrate", type=int, default=512, metavar="N", help="int8: training examples that fix the ranges (512)")
    compressed.add_argument("--repeats", type=int, default=10, metavar="N", help="of the timing, there and back; the median counts (10)")


def embeddings(embedded: argparse.ArgumentParser) -> None:
    text = "a folder of images, or FILE.npz[:SPLIT]; of a run of texts a file or a folder of them; of both tfds:NAME[:SPLIT]"
    embedded.add_argument("--input", required=True, metavar="WHAT", help=text)
    embedded.add_argument("--output", required=True, metavar="FILE", help="ends in .npz or .parquet")
    text = "examples a process sends to its devices at a time (256)"
    embedded.add_argument("--batch-size", type=int, default=256, metavar="N", help=text)


def serving(served: argparse.ArgumentParser) -> None:
    """What is served, where, and the limits of a request; absent limits are not passed on, so defaults stand with ``serve.Limits``."""
    served.add_argument("--index", metavar="FILE.npz", help="embeddings of `byol-jax embed`, for /similar")
    text = "take out of them what all of the index share, before cosines are taken: of texts mostly better"
    served.add_argument("--whiten", action="store_true", help=text)
    served.add_argument("--probe", metavar="FILE.npz", help="a classifier of `byol-jax evaluate linear --save`, for /classify")
    served.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s: this machine alone)")
    served.add_argument("--port", type=int, default=8000, help="0 takes a free one (%(default)s)")
    served.add_argument("--api-key-file", metavar="FILE", help="holds the key that requests must bring; none if not given")
    text = "sizes of a batch to compile (1,8,32)"
    served.add_argument("--sizes", type=_numbers(int), default=(1, 8, 32), metavar="N,N", help=text)
    text = "milliseconds that a batch waits for examples that are being prepared (%(default)g)"
    served.add_argument("--window", type=float, default=2.0, metavar="MS", help=text)
    limits = served.add_argument_group("limits of a request", argument_default=argparse.SUPPRESS)
    for name, kind, text in (
        ("bytes", int, "of its body (16777216)"),
        ("pixels", int, "of an image (50000000)"),
        ("characters", int, "of a text (100000)"),
        ("count", int, "images or texts in it (32)"),
        ("seconds", float, "until it is answered (30)"),
    ):
        limits.add_argument(f"--max-{name}", dest=f"limit_{name}", type=kind, metavar="N", help=text)
    limits.add_argument("--queue", dest="limit_queue", type=int, metavar="N", help="images or texts here at once, of all callers (256)")


def shards(recorded: argparse.ArgumentParser) -> None:
    config(recorded, required=True)
    recorded.add_argument("--output", required=True, metavar="DIR", help="folder of the data set; its last part becomes data.name")
    recorded.add_argument("--split", metavar="NAME", help="this one alone")
    recorded.add_argument("--shards", type=int, metavar="N", help="of each split; one of every 2048 examples if not given")


def tokenizers(learned: argparse.ArgumentParser) -> None:
    config(learned, required=True)
    learned.add_argument("--output", metavar="FILE", help="where to write it, such as tokenizer.json; the configuration's text.tokenizer")
    learned.add_argument(
        "--kind", choices=("wordpiece", "bpe"), default="wordpiece", help="BERT's, in small letters, or RoBERTa's, of bytes"
    )
    learned.add_argument("--vocab", type=int, default=8192, metavar="N", help="tokens at most (%(default)s)")


def plans(planned: argparse.ArgumentParser) -> None:
    config(planned, required=True)
    planned.add_argument(
        "--topology",
        metavar="NAME",
        required=True,
        help="v5e:16x16, v6e:8x8, v4:4x4x4, v5p:2x2x1, h100:8, h200:4x8, a100, gpu, gpu:4 or cpu:8",
    )
    planned.add_argument("--examples", type=int, metavar="N", help="of the training data, where it is not here (ImageNet: 1281167)")
    planned.add_argument("--classes", type=int, metavar="N", help="the same, for the online probe (ImageNet: 1000)")
    planned.add_argument("--cache", metavar="DIR", default="~/.cache/byol_jax/plan", help="of earlier results (%(default)s)")


def benches(benched: argparse.ArgumentParser) -> None:
    benched.add_argument("what", choices=BENCHES, help="; ".join(f"{name}: {text}" for name, text in BENCHES.items()))
    config(benched, required=True)
    benched.add_argument("--batch-size", type=int, metavar="N", help="the configuration's if not given")
    benched.add_argument("--repeats", type=int, default=10, metavar="N", help="of which the median counts (10)")
    benched.add_argument("--synthetic", action="store_true", help="on noise of the configuration's shapes: needs no data and no TensorFlow")
    benched.add_argument("--baseline", action="store_true", help="step, input: the official recipe's form as well, in turns, and the ratio")
    benched.add_argument("--peer", choices=("lightly",), help="step, input: lightly's BYOL in PyTorch as well (extra lightly), in turns")
    benched.add_argument("--json", metavar="FILE.jsonl", help="add a line with all of it to this file")


def config(group: argparse._ActionsContainer, **options: Any) -> None:
    group.add_argument("--config", metavar="FILE.py[:VARIANT]", help="config file, such as configs/digits.py", **options)


def _number(kind: type[int] | type[float], text: str) -> float:
    """A number; where it may be a fraction also one written as such, 8/255."""
    upper, slash, lower = text.partition("/")
    return kind(text) if not slash or kind is int else float(upper) / float(lower)


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(kind: type[int] | type[float], word: str | None = None) -> Callable[[str], tuple[float, ...]]:
    """Reads one number or several, ``1,2,5``; where ``word`` is given, it may be written for 0."""

    def numbers(text: str) -> tuple[float, ...]:
        try:
            return tuple(kind(0) if part == word else _number(kind, part) for part in text.split(","))
        except (ValueError, ZeroDivisionError):
            what = "whole numbers, such as 1,2,5" if kind is int else "numbers, such as 0.01,0.1"
            raise argparse.ArgumentTypeError(f"{text!r}: must be {what}{f' or {word}' if word else ''}") from None

    return numbers
