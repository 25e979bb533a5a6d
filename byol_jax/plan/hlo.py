"""Collectives in the text of a compiled program: how many of each kind, and how many bytes each device gets from them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
    "send",
    "recv",
)
_BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16}  # of the types whose name does not end in their width
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_OPERATION = re.compile(
    rf"^\s*(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(.*?\)|\S+) (?P<kind>{'|'.join(KINDS)})(?P<half>-start|-done)?\((?P<rest>.*)$"
)
COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.-]+) [^=]*(?:/\*index=\d+\*/[^=]*)*\{\s*$")
_WHILE = re.compile(r"\bwhile\(.*\bbody=%?(?P<body>[\w.-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(?P<n>\d+)"')
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.-]+)")
BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_COMMENT = re.compile(r"/\*.*?\*/")
_LAYOUT = re.compile(r"(?<=\])\{[^{}]*\}")


@dataclass(frozen=True)
class Collective:
    """One operation: ``bytes`` of its result on each device, the ``times`` it runs in a step, and the part of the model it came from.

    ``whole``: its result is of whole numbers.
    """

    kind: str
    bytes: int
    times: int
    name: str
    whole: bool = False


def collectives(text: str, loop: int = 1) -> list[Collective]:
    """Every collective of a program in XLA's text form (``jax.stages.Compiled.as_text()``).

    A pair of start and done is one; a tuple counts as the sum of its parts; what stands in a loop runs as often as the loop, which is
    ``loop`` times where the text does not say it (the TPU compiler's does not).
    """
    found: list[tuple[str, str, int, str, bool]] = []
    calls: dict[str, list[tuple[str, int]]] = {}
    here = ""
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            here = head["name"]
            calls.setdefault(here, [])
            continue
        calls.setdefault(here, []).extend(_calls(line, loop))
        if operation := _operation(line):
            found.append((here, *operation))
    times = _times(calls)
    return [Collective(kind, size, times(where), name, whole) for where, kind, size, name, whole in found]


def totals(found: list[Collective]) -> dict[str, tuple[int, int]]:
    """Kind -> (how many run in a step, their bytes)."""
    result: dict[str, tuple[int, int]] = {}
    for one in found:
        count, size = result.get(one.kind, (0, 0))
        result[one.kind] = count + one.times, size + one.times * one.bytes
    return result


def array_bytes(shape: str) -> int:
    """Bytes of a type as XLA writes it, "f32[2,3]{1,0:T(2,128)}" or a tuple of such; what is no array counts nothing."""
    return sum(math.prod(map(int, filter(None, sides.split(",")))) * _bits(kind) // 8 for kind, sides in _ARRAY.findall(shape))


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    width = re.match(r"[a-z]+(\d+)", kind)  # f32, u8, f8e4m3fn
    return int(width[1]) if width else 0


def plain(line: str) -> str:
    """Without layouts and comments."""
    return _LAYOUT.sub("", _COMMENT.sub("", line))


def _operation(line: str) -> tuple[str, int, str, bool] | None:
    match = _OPERATION.match(plain(line))
    if not match or match["half"] == "-done":
        return None
    shape, kind = match["type"], match["kind"]
    if match["half"] == "-start":
        shape = result_of_start(shape, kind)
    came_from = re.search(r'op_name="([^"]*)"', line)
    whole = all(of.startswith(("s", "u", "pred")) for of, _ in _ARRAY.findall(shape))
    return kind, array_bytes(shape), came_from[1] if came_from else match["name"], whole


def result_of_start(shape: str, kind: str) -> str:
    """An all-reduce-start has the type of its result; the others give (operands, results[, flags]), each an array or a tuple."""
    if kind == "all-reduce" or not shape.startswith("("):
        return shape
    parts, depth, part = [], 0, ""
    for letter in shape[1:-1]:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    parts.append(part)
    return parts[0] if kind == "send" else parts[1] if len(parts) > 1 else parts[0]


def _calls(line: str, loop: int) -> Iterator[tuple[str, int]]:
    """(computation, how often it runs for each run of this line)."""
    body, trips = _WHILE.search(line), TRIPS.search(line)
    for name in CALLED.findall(line):
        yield name, (int(trips["n"]) if trips else loop) if body and name == body["body"] else 1
    for group in BRANCHES.findall(line):
        yield from ((name.strip().lstrip("%"), 1) for name in group.split(","))


def _times(calls: dict[str, list[tuple[str, int]]]) -> Callable[[str], int]:
    """How often a computation runs in one run of the whole program."""
    callers: dict[str, list[tuple[str, int]]] = {}
    for caller, called in calls.items():
        for name, trips in called:
            callers.setdefault(name, []).append((caller, trips))
    known: dict[str, int] = {}

    def times(name: str) -> int:
        if name not in known:
            known[name] = sum(times(caller) * trips for caller, trips in callers[name]) if name in callers else 1
        return known[name]

    return times
