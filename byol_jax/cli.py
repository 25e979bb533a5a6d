"""The command line: verbs and flags, no logic. Libraries are imported when a verb runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from byol_jax import config as cfg
from byol_jax.flags import evaluations

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

    def verb(name: str, run: object, text: str, *parents: argparse.ArgumentParser, under: Any = verbs) -> argparse.ArgumentParser:
        options: dict[str, Any] = {"help": text, "description": f"{text[0].upper()}{text[1:]}.", "epilog": EPILOG, "allow_abbrev": False}
        added = under.add_parser(
            name,
            parents=[shared, *parents],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
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
    evaluations(verb("evaluate", evaluate, "evaluate the encoder of a run", workdir, step))
    converted = verb("convert", convert, "make a run from a checkpoint of another code; nothing in the file is executed")
    converted.add_argument("--from", dest="source", choices=("deepmind", "torch"), required=True, help="the code that wrote it")
    text = "deepmind: pretrain.pkl or linear-eval.pkl of the official BYOL code; torch: a ResNet's .safetensors or .pth"
    converted.add_argument("file", metavar="FILE", help=text)
    converted.add_argument("--to", metavar="DIR", required=True, help="new folder of the run")
    text = "torch: what stands before the layers of the network to take, such as module.encoder_q.; the online one is found if not given"
    converted.add_argument("--prefix", metavar="NAME", help=text)
    exported = verb("export", export, "write the encoder of a run in a format of other programs", workdir, step)
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
    text = "write the embeddings of images or texts to a file; goes on where it was stopped"
    _embed_options(verb("embed", embed, text, workdir, step))
    actions = verb("data", None, "write data as shards for random access, or check them").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    text = "write all splits a configuration names as ArrayRecord shards; goes on where it was stopped"
    recorded = verb("convert", convert_data, text, under=actions)
    _config(recorded, required=True)
    recorded.add_argument("--output", required=True, metavar="DIR", help="folder of the data set; its last part becomes data.name")
    recorded.add_argument("--split", metavar="NAME", help="this one alone")
    recorded.add_argument("--shards", type=int, metavar="N", help="of each split; one of every 2048 examples if not given")
    text = "learn a tokenizer from the training texts a configuration names"
    learned = verb("tokenizer", learn_tokenizer, text, under=actions)
    _config(learned, required=True)
    learned.add_argument("--output", metavar="FILE", help="where to write it, such as tokenizer.json; the configuration's text.tokenizer")
    learned.add_argument(
        "--kind", choices=("wordpiece", "bpe"), default="wordpiece", help="BERT's, in small letters, or RoBERTa's, of bytes"
    )
    learned.add_argument("--vocab", type=int, default=8192, metavar="N", help="tokens at most (%(default)s)")
    text = "read converted shards again and compare them with their checksums"
    verb("verify", verify_data, text, under=actions).add_argument("folder", metavar="DIR", help="what was the --output")
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
    _bench_options(benched)
    return root


def _embed_options(embedded: argparse.ArgumentParser) -> None:
    text = "a folder of images, or FILE.npz[:SPLIT]; of a run of texts a file or a folder of them; of both tfds:NAME[:SPLIT]"
    embedded.add_argument("--input", required=True, metavar="WHAT", help=text)
    embedded.add_argument("--output", required=True, metavar="FILE", help="ends in .npz or .parquet")
    text = "examples a process sends to its devices at a time (256)"
    embedded.add_argument("--batch-size", type=int, default=256, metavar="N", help=text)


def _bench_options(benched: argparse.ArgumentParser) -> None:
    benched.add_argument("--batch-size", type=int, metavar="N", help="the configuration's if not given")
    benched.add_argument("--repeats", type=int, default=10, metavar="N", help="of which the median counts (10)")
    benched.add_argument("--synthetic", action="store_true", help="on noise of the configuration's shapes: needs no data and no TensorFlow")
    benched.add_argument("--baseline", action="store_true", help="step, input: the official recipe's form as well, in turns, and the ratio")
    benched.add_argument("--peer", choices=("lightly",), help="step, input: lightly's BYOL in PyTorch as well (extra lightly), in turns")
    benched.add_argument("--json", metavar="FILE.jsonl", help="add a line with all of it to this file")


BENCHES = {
    "step": "a training step, its parts, FLOPs and memory",
    "input": "batches of two views from disk or memory",
    "augment": "the device's part of the views",
    "eval": "the frozen encoder",
}


def _config(group: argparse._ActionsContainer, **options: Any) -> None:
    group.add_argument("--config", metavar="FILE.py[:VARIANT]", help="config file, such as configs/digits.py", **options)


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


def convert_data(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    spec = cfg.load(args.config, overrides)
    from byol_jax import build

    for line in build.convert_data(spec, args.output, split=args.split, shards=args.shards):
        print(line)


def learn_tokenizer(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    spec = cfg.load(args.config, overrides)
    from byol_jax import build

    print(build.learn_tokenizer(spec, args.output, kind=args.kind, vocab=args.vocab))


def verify_data(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    if overrides:
        raise cfg.ConfigError([f"--config.{overrides[0][0]}: data verify takes no configuration"])
    from byol_jax import build

    for line in build.verify_data(args.folder):
        print(line)


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
    from byol_jax import bench, parallel

    parallel.initialize()
    options = {name: getattr(args, name) for name in ("json", "repeats", "synthetic", "baseline", "peer")}
    bench.run(args.what, spec, config=args.config, changes=changes, **options)
