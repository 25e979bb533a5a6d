"""The command line: verbs and flags, no logic. Libraries are imported when a verb runs, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from byol_jax import config as cfg
from byol_jax import flags

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
    flags.config(shown)
    shown.add_argument("--workdir", metavar="DIR", help="show the configuration of the run in this folder")
    flags.config(
        verb("pretrain", pretrain, "pretrain, or go on with the run that stands in the folder (then --config may be left out)", workdir)
    )
    flags.evaluations(verb("evaluate", evaluate, "evaluate the encoder of a run", workdir, step))
    flags.conversions(verb("convert", convert, "make a run from a checkpoint of another code; nothing in the file is executed"))
    flags.exports(verb("export", export, "write the encoder of a run in a format of other programs", workdir, step))
    text = "make a run's encoder smaller by pruning and 8 bits, train what it lost, and tell what it gained and cost"
    flags.compressions(verb("compress", compress, text, workdir, step))
    text = "write the embeddings of images or texts to a file; goes on where it was stopped"
    flags.embeddings(verb("embed", embed, text, workdir, step))
    text = "answer requests over HTTP: embeddings of images or texts, their classes, their nearest neighbours"
    flags.serving(verb("serve", serve, text, workdir, step))
    actions = verb("data", None, "write data as shards for random access, or check them").add_subparsers(
        dest="action", metavar="ACTION", required=True
    )
    text = "write all splits a configuration names as ArrayRecord shards; goes on where it was stopped"
    flags.shards(verb("convert", convert_data, text, under=actions))
    text = "learn a tokenizer from the training texts a configuration names"
    flags.tokenizers(verb("tokenizer", learn_tokenizer, text, under=actions))
    text = "read converted shards again and compare them with their checksums"
    verb("verify", verify_data, text, under=actions).add_argument("folder", metavar="DIR", help="what was the --output")
    swept = verb("sweep", sweep, "run every point of a sweep, or a search by Optuna; go on where it stopped, and write its page", workdir)
    text = "such as experiments/paper/tau/sweep.py:small or experiments/search_digits/search.py"
    swept.add_argument("study", metavar="FILE.py[:SCALE]", help=text)
    text = "compile the training step for a machine that need not be here; print what it needs, and how long it takes"
    flags.plans(verb("plan", plan, text))
    verb("report", report, "write a page of curves, pictures and numbers of a run", workdir, step)
    flags.benches(verb("bench", bench, "measure how fast a configuration runs here"))
    return root


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


def compress(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build

    settings = build.Settings(args.recover, args.recover_epochs, args.recover_rate, args.calibrate)
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    options = {"levels": args.levels, "settings": settings, "step": args.step, "repeats": args.repeats}
    result, path = build.compressed(args.workdir, spec, args.to, **options)
    print(f"{result.table()}\nwritten to {path}\n")


def evaluate(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build, parallel

    parallel.initialize()
    spec = cfg.override(build.read_spec(args.workdir), overrides)
    options = {name: value for name, value in vars(args).items() if name not in ("kind", "workdir", "verb", "run", "traceback", "step")}
    for result, path in build.evaluation(args.kind, args.workdir, spec, step=args.step, **options):
        if parallel.is_main():
            print(f"{result.table()}\nwritten to {path}\n")
    if parallel.is_main() and "save" in options:
        print(f"classifier written to {options['save']}")


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


def serve(args: argparse.Namespace, overrides: list[tuple[str, str]]) -> None:
    from byol_jax import build
    from byol_jax import serve as serving

    spec = cfg.override(build.read_spec(args.workdir), overrides)
    limits = {name.removeprefix("limit_"): value for name, value in vars(args).items() if name.startswith("limit_")}
    names = ("step", "index", "whiten", "probe", "host", "port", "api_key_file", "sizes")
    options = {name: getattr(args, name) for name in names}
    serving.serve(args.workdir, spec, limits=serving.Limits(**limits), window=args.window / 1000, **options)


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
