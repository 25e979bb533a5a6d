"""The command line: verbs and flags, no logic. Libraries are imported when a verb runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import NoReturn

from byol_jax import config as cfg

EPILOG = """any key of the configuration can be set: --config.optimizer.learning_rate=0.3 --config.views.view1.crop_area=0.2,1
(`byol-jax show` lists the keys; on a run of a working directory such flags change what that run was configured with)"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Runs one verb and exits: 0 when done, 2 for a mistake of the user's, told without a traceback."""
    words, overrides = split(sys.argv[1:] if argv is None else argv)
    args = parser().parse_args(words)
    logging.basicConfig(format="%(levelname)s: %(message)s")
    try:
        args.run(args, overrides)
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        print(f"byol-jax {args.verb}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


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
    verb("evaluate", evaluate, "evaluate the encoder of a run", workdir, step).add_argument(
        "kind",
        choices=("knn", "linear", "collapse", "fewlabels"),
        help="knn; linear: L-BFGS and the paper's SGD; collapse: spread and rank; fewlabels: against raw pixels and the untrained network",
    )
    converted = verb("convert", convert, "make a run from a checkpoint of another code; nothing in the file is executed")
    converted.add_argument("--from", dest="source", choices=("deepmind", "torch"), required=True, help="the code that wrote it")
    text = "deepmind: pretrain.pkl or linear-eval.pkl of the official BYOL code; torch: a ResNet's .safetensors or .pth"
    converted.add_argument("file", metavar="FILE", help=text)
    converted.add_argument("--to", metavar="DIR", required=True, help="new folder of the run")
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
    swept = verb("sweep", sweep, "train and measure every point of a study, go on where it stopped, and write its page", workdir)
    swept.add_argument("study", metavar="SWEEP.py[:SCALE]", help="such as experiments/paper/tau/sweep.py:small")
    verb("report", report, "write a page of curves, pictures and numbers of a run", workdir, step)
    return root


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

    print(build.convert(args.source, args.file, args.to, overrides))


def export(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    spec = cfg.override(build.read_spec(args.workdir), overrides)
    for path in build.export(args.to, args.workdir, spec, args.output, step=args.step, licence=args.licence):
        print(f"written to {path}")


def evaluate(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build, parallel

    parallel.initialize()
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    for result, path in build.evaluation(args.kind, args.workdir, spec, step=args.step):
        if parallel.is_main():
            print(f"{result.table()}\nwritten to {path}\n")


def report(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    print(f"written to {build.report(args.workdir, cfg.override(build.read_spec(args.workdir), overrides), step=args.step)}")


def embed(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build, parallel

    parallel.initialize()
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    path = build.embed(args.workdir, spec, args.input, args.output, step=args.step, batch_size=args.batch_size)
    if parallel.is_main():
        print(f"written to {path}")


def sweep(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from pathlib import Path

    from byol_jax.config.sweep import load_sweep

    if overrides:
        raise cfg.ConfigError([f"--config.{overrides[0][0]}: a sweep's points say what is changed; add it to {args.study}"])
    study, scale, folder = load_sweep(args.study)
    from byol_jax import build, parallel

    parallel.initialize()
    print(f"written to {build.sweep(study, scale, folder, Path(args.workdir) / scale)}")
