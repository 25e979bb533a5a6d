"""How fast a configuration runs here: its step, augmentation, input and frozen encoder, beside the official recipe's form and lightly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from byol_jax import parallel
from byol_jax.bench import result, step
from byol_jax.bench.input import host_input
from byol_jax.bench.result import Result
from byol_jax.config import ConfigError, Spec

BENCHES: dict[str, Callable[..., Result]] = {"step": step.step, "input": host_input, "augment": step.augment, "eval": step.encoder}

TOGETHER = ("step", "augment")  # which several processes can measure


def run(
    what: str, spec: Spec, *, config: str, changes: Mapping[str, str], json: str | None = None, repeats: int = 10, **options: Any
) -> dict[str, Any]:
    """Measures, prints a table, appends a line to ``json`` if given (both the main process alone), and returns that line.

    Args:
      what: a key of ``BENCHES``.
      config, changes: where ``spec`` comes from, for the record.
      json: a .jsonl file.
      options: ``synthetic``, noise instead of data; ``baseline``, the official form in turns with ours; ``peer``, "lightly" or None.

    Raises:
      ConfigError, ValueError: an option that does not fit; nothing was measured then.
    """
    if repeats < 1:
        raise ConfigError([f"--repeats {repeats}: must be 1 or more"])
    if json is not None and not json.endswith(".jsonl"):
        raise ConfigError([f"--json {json}: must end in .jsonl; a line is added to it"])
    if parallel.joined() > 1 and (what not in TOGETHER or options["peer"]):
        asked = f"--peer {options['peer']}" if what in TOGETHER else f"bench {what}"
        raise ConfigError([f"{asked}: measures one process, not {parallel.joined()}; several are for {', '.join(TOGETHER)} without --peer"])
    found = BENCHES[what](spec, repeats=repeats, **options)
    measured = result.line(found, what, config, changes, spec, synthetic=options["synthetic"])
    title = f"{what}: {config}, batch {spec.batch_size}, {measured['devices']} x {measured['device']}, median of {repeats}"
    if not parallel.is_main():
        return measured
    console = Console(highlight=False, markup=False)
    console.print(found.table(title), *found.sentences(), sep="\n")
    if json is not None:
        result.append(json, measured)
    return measured


__all__ = ["BENCHES", "Result", "run"]
