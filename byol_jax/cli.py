"""The command line: verbs and flags, no logic. Libraries are imported when a verb runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from byol_jax import config as cfg

EPILOG = """any key of the configuration can be set: --config.optimizer.learning_rate=0.3 --config.views.view1.crop_area=0.2,1
(`byol-jax show` lists the keys; on a run of a working directory such flags change what that run was configured with)
exit codes: 0 done, or saved after a signal; 1 the run failed (diverged, a save failed, another process failed); 2 a mistake"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one verb and exits with a code of EPILOG's; what went wrong is told without a traceback."""
    words, overrides = split(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        args.run(args, overrides)
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        print(f"byol-jax {args.verb}: {error}", file=sys.stderr)
        leave(getattr(error, "exit_code", 2), str(error))
    except KeyboardInterrupt:
        leave(130, "interrupted")
    sys.exit(0)


def leave(code: int, reason: str) -> NoReturn:
    """Exits; the other processes of the run, if verbs have joined any, do not wait for this one."""
    parallel = sys.modules.get("byol_jax.parallel")
    if parallel is not None:
        parallel.give_up(code, reason)
    sys.exit(code)


def split(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes ``--config.key=value`` and ``--config.key value`` out of the arguments."""
    words, overrides, rest = [], [], iter(argv)
    for word in rest:
        if not word.startswith("--config."):
            words.append(word)
            continue
        key, equals, value = word.removeprefix("--config.").partition("=")
        if not equals and (value := next(rest, "--")).startswith("--"):
            parser().error(f"--config.{key} needs a value, as in --config.{key}=...")
        overrides.append((key, value))
    return words, overrides


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--traceback", action="store_true", help="show where in the code an error arose")
    workdir = argparse.ArgumentParser(add_help=False)
    workdir.add_argument("--workdir", metavar="DIR", required=True, help="folder of the run")
    step = argparse.ArgumentParser(add_help=False)
    step.add_argument("--step", type=int, help="step of the checkpoint; the latest if not given")
    root = argparse.ArgumentParser(prog="byol-jax", description="Bootstrap Your Own Latent in JAX.", allow_abbrev=False)
    verbs = root.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, run: object, text: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        options = {"help": text, "description": f"{text[0].upper()}{text[1:]}.", "epilog": EPILOG, "allow_abbrev": False}
        added = verbs.add_parser(
            name,
            parents=[shared, *parents],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,  # type: ignore[arg-type]
        )
        added.set_defaults(run=run)
        return added

    shown = verb(
        "show", show, "print the resolved configuration, parameters, shapes and steps; trains nothing"
    ).add_mutually_exclusive_group(required=True)
    _config(shown)
    shown.add_argument("--workdir", metavar="DIR", help="show the configuration of the run in this folder")
    _config(
        verb("pretrain", pretrain, "pretrain, or go on with the run that stands in the folder (then --config may be left out)", workdir)
    )
    _evaluations(verb("evaluate", evaluate, "evaluate the encoder of a run", workdir, step))
    converted = verb("convert", convert, "make a run from a checkpoint of another code; nothing in the file is executed")
    converted.add_argument("--from", dest="source", choices=("deepmind", "torch"), required=True, help="the code that wrote it")
    text = "deepmind: pretrain.pkl or linear-eval.pkl of the official BYOL code; torch: a ResNet's .safetensors or .pth"
    converted.add_argument("file", metavar="FILE", help=text)
    converted.add_argument("--to", metavar="DIR", required=True, help="new folder of the run")
    text = "torch: what stands before the layers of the network to take, such as module.encoder_q.; the online one is found if not given"
    converted.add_argument("--prefix", metavar="NAME", help=text)
    exported = verb("export", export, "write the encoder of a run in a format of other programs", workdir, step)
    text = "safetensors: a ResNet under torchvision's names; stablehlo: pixels to embedding, for jax alone; hub: a folder with a model card"
    exported.add_argument(
        "--to", choices=("safetensors", "stablehlo", "hub", "onnx"), required=True, help=f"{text}; how images are prepared stands beside it"
    )
    exported.add_argument("--output", metavar="PATH", required=True, help="where to write it")
    exported.add_argument("--licence", metavar="ID", help="hub: such as apache-2.0; left open if not given")
    embedded = verb("embed", embed, "write the embeddings of images to a file; goes on where it was stopped", workdir, step)
    embedded.add_argument("--input", required=True, metavar="WHAT", help="a folder of images, FILE.npz[:SPLIT] or tfds:NAME[:SPLIT]")
    embedded.add_argument("--output", required=True, metavar="FILE", help="ends in .npz or .parquet")
    embedded.add_argument("--batch-size", type=int, default=256, metavar="N", help="images a process sends to its devices at a time (256)")
    swept = verb("sweep", sweep, "run every point of a sweep, or a search by Optuna; go on where it stopped, and write its page", workdir)
    text = "such as experiments/paper/tau/sweep.py:small or experiments/search_digits/search.py"
    swept.add_argument("study", metavar="FILE.py[:SCALE]", help=text)
    planned = verb(
        "plan", plan, "compile the training step for a machine that need not be here; print what it needs, and how long it takes"
    )
    _config(planned, required=True)
    planned.add_argument("--topology", metavar="NAME", required=True, help="v5e:16x16, v6e:8x8, v4:4x4x4, v5p:2x2x1, gpu, gpu:4 or cpu:8")
    planned.add_argument("--examples", type=int, metavar="N", help="of the training data, where it is not here (ImageNet: 1281167)")
    planned.add_argument("--classes", type=int, metavar="N", help="the same, for the online probe (ImageNet: 1000)")
    planned.add_argument("--cache", metavar="DIR", default="~/.cache/byol_jax/plan", help="of earlier results (%(default)s)")
    verb("report", report, "write a page of curves, pictures and numbers of a run", workdir, step)
    benched = verb("bench", bench, "measure how fast a configuration runs here")
    benched.add_argument("what", choices=BENCHES, help="; ".join(f"{name}: {text}" for name, text in BENCHES.items()))
    _config(benched, required=True)
    benched.add_argument("--batch-size", type=int, metavar="N", help="the configuration's if not given")
    benched.add_argument("--repeats", type=int, default=10, metavar="N", help="of which the median counts (10)")
    benched.add_argument("--synthetic", action="store_true", help="on noise of the configuration's shapes: needs no data and no TensorFlow")
    benched.add_argument("--baseline", action="store_true", help="step, input: the official recipe's form as well, in turns, and the ratio")
    benched.add_argument("--json", metavar="FILE.jsonl", help="add a line with all of it to this file")
    return root


KINDS = {
    "knn": "weighted k-NN",
    "linear": "L-BFGS and SGD on features computed once",
    "linear_paper": "the paper's SGD from cropped and flipped images",
    "collapse": "spread and rank",
    "fewlabels": "against raw pixels and the untrained network",
    "semisup": "the whole network fine-tuned on a hundredth and a tenth of the labels",
    "transfer": "linear classifiers on the paper's twelve other data sets",
    "transfer_finetune": "the whole network fine-tuned on each of them",
}


BENCHES = {
    "step": "a training step, its parts, FLOPs and memory",
    "input": "batches of two views from disk or memory",
    "augment": "the device's part of the views",
    "eval": "the frozen encoder",
}


def _evaluations(added: argparse.ArgumentParser) -> None:
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


def _config(group: argparse._ActionsContainer, **options: bool) -> None:
    group.add_argument("--config", metavar="FILE.py[:VARIANT]", help="config file, such as configs/digits.py", **options)  # type: ignore[arg-type]


def show(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    print(build.describe(cfg.load(args.config, overrides) if args.config else cfg.override(build.read_spec(args.workdir), overrides)))


def pretrain(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    spec = cfg.load(args.config, overrides) if args.config else None  # before jax is imported: mistakes are told at once
    from byol_jax import build, parallel

    spec = spec or cfg.override(build.read_spec(args.workdir), overrides)
    parallel.initialize()
    run = build.pretrain(spec, args.workdir)
    if parallel.is_main():
        print(build.farewell(run, args.workdir))


def convert(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    print(build.convert(args.source, args.file, args.to, overrides, prefix=args.prefix))


def export(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    spec = cfg.override(build.read_spec(args.workdir), overrides)
    for path in build.export(args.to, args.workdir, spec, args.output, step=args.step, licence=args.licence):
        print(f"written to {path}")


def evaluate(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build, parallel

    parallel.initialize()
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    options = {name: value for name, value in vars(args).items() if name not in ("kind", "workdir", "verb", "run", "traceback", "step")}
    for result, path in build.evaluation(args.kind, args.workdir, spec, step=args.step, **options):
        if parallel.is_main():
            print(f"{result.table()}\nwritten to {path}\n")


def report(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    print(f"written to {build.report(args.workdir, cfg.override(build.read_spec(args.workdir), overrides), step=args.step)}")


def plan(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    spec = cfg.load(args.config, overrides)
    from byol_jax import plan as planning

    page, faults = planning.plan(spec, args.topology, examples=args.examples, classes=args.classes, cache=args.cache)
    print(page)
    if faults:
        raise planning.Unexpected("; ".join(faults))


def embed(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build, parallel

    parallel.initialize()
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    path = build.embed(args.workdir, spec, args.input, args.output, step=args.step, batch_size=args.batch_size)
    if parallel.is_main():
        print(f"written to {path}")


def sweep(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax.config.study import Search, load_study

    if overrides:
        raise cfg.ConfigError([f"--config.{overrides[0][0]}: a study says itself what is changed; add it to {args.study}"])
    study, scale, folder = load_study(args.study)
    from byol_jax import build, parallel

    parallel.initialize()
    if isinstance(study, Search):
        print(f"written to {build.search(study, folder, args.workdir)}")
    else:
        print(f"written to {build.sweep(study, scale, folder, args.workdir)}")


def bench(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    changes = dict(overrides) | ({"batch_size": str(args.batch_size)} if args.batch_size is not None else {})
    spec = cfg.load(args.config, changes.items())
    from byol_jax import bench

    options = {name: getattr(args, name) for name in ("json", "repeats", "synthetic", "baseline")}
    bench.run(args.what, spec, config=args.config, changes=changes, **options)
