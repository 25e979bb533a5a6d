"""A pod without a pod: the training step compiled ahead of time by the real compiler of a machine that need not be there."""

from __future__ import annotations

import os

from byol_jax.config import Spec
from byol_jax.plan import cache as kept
from byol_jax.plan import report, topology
from byol_jax.plan.compile import Compiled, compile_step, versions
from byol_jax.plan.inputs import look

__all__ = ["Compiled", "Unexpected", "plan"]


class Unexpected(ValueError):
    """The step that was compiled moves something between chips that it should not."""

    exit_code = 1


def plan(
    spec: Spec,
    where: str,
    *,
    examples: int | None = None,
    classes: int | None = None,
    cache: str | os.PathLike[str] = kept.FOLDER,
) -> tuple[str, list[str]]:
    """(the page, what is wrong with the compiled step).

    Args:
      where: a topology, see ``byol_jax.plan.topology``.
      examples, classes: of the training data, where it is not on this machine.
      cache: folder of earlier results.

    Raises:
      ConfigError, ValueError: an unknown topology or one that cannot be compiled for here, data that is not here, a batch that the
        devices cannot share.
    """
    machine = topology.find(where)
    inputs = look(spec, examples, classes)
    known = kept.key(spec, machine, inputs)
    file = kept.place(cache, spec, known)
    compiled = kept.load(file)
    by = ", ".join(f"{name} {version}" for name, version in versions(machine).items())
    made = f"from the cache: {file}"
    if compiled is None:
        compiled = compile_step(spec, machine, inputs)
        kept.save(file, known, compiled)
        made = f"compiled in {compiled.seconds:.0f} s by {by}"
    return report.page(spec, machine, inputs, compiled, made), compiled.faults()
