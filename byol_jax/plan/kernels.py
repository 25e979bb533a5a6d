"""Bytes that a GPU's kernels move, read from the text of a compiled program: XLA's own count is there only where a GPU is."""

from __future__ import annotations

import re
from typing import NamedTuple

from byol_jax.plan import hlo

_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"}
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(.*?\)|\S+) (?P<kind>[\w-]+)\((?P<operands>[^)]*)\)(?P<rest>.*)$")


class Instruction(NamedTuple):
    kind: str
    type: str
    operands: list[str]
    rest: str


Computation = dict[str, Instruction]


def moved(text: str) -> int:
    """Bytes of the operands and results of every kernel that a run of the program starts, a library's as well as a fusion's.

    A loop counts by the trips that the text gives it, else once; of a conditional's branches the largest counts.
    """
    computations, entry = _parsed(text)
    return _moved(computations, entry)


def _parsed(text: str) -> tuple[dict[str, Computation], str]:
    found: dict[str, Computation] = {}
    here = entry = ""
    for line in text.splitlines():
        if head := hlo.COMPUTATION.match(line):
            here = head["name"]
            found[here] = {}
            entry = here if line.startswith("ENTRY") else entry
        elif made := _INSTRUCTION.match(hlo.plain(line)):
            operands = re.findall(r"%([\w.-]+)", made["operands"])
            found.setdefault(here, {})[made["name"]] = Instruction(made["kind"], made["type"], operands, made["rest"])
    return found, entry


def _moved(computations: dict[str, Computation], name: str) -> int:
    inside = computations.get(name, {})
    return sum(_of_one(computations, inside, one) for one in inside.values())


def _of_one(computations: dict[str, Computation], inside: Computation, one: Instruction) -> int:
    if one.kind in _FREE or one.kind.endswith("-done"):
        return 0
    called = hlo.CALLED.findall(one.rest)
    if one.kind in ("while", "call"):
        trips = hlo.TRIPS.search(one.rest)
        return (int(trips["n"]) if trips else 1) * sum(_moved(computations, name) for name in called)
    if one.kind == "conditional":
        branches = [*called, *re.findall(r"[\w.-]+", "".join(hlo.BRANCHES.findall(one.rest)))]
        return max((_moved(computations, name) for name in branches), default=0)
    result = hlo.result_of_start(one.type, one.kind.removesuffix("-start")) if one.kind.endswith("-start") else one.type
    read = sum(hlo.array_bytes(inside[operand].type) for operand in one.operands if operand in inside)
    return hlo.array_bytes(result) + read
