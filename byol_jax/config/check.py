"""Reads a tree of plain values into frozen dataclasses, and collects every error on the way.

The dataclasses are the schema: annotations give the types (``X | None``, ``Literal``, tuples), ``metadata["rule"]`` the range.
Nothing here knows what a key means. Imports neither jax nor TensorFlow.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import json
import os
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


class ConfigError(ValueError):
    """Everything that is wrong with a configuration, one line an error.

    Attributes:
      errors: the single messages; each names the key, the value, the rule and, where there is one, the nearest valid choice.
    """

    def __init__(self, errors: typing.Sequence[str]) -> None:
        self.errors = tuple(errors)
        head = "1 error in the configuration:" if len(self.errors) == 1 else f"{len(self.errors)} errors in the configuration:"
        super().__init__("\n  - ".join([head, *self.errors]))


@dataclass(frozen=True)
class Rule:
    """A range: ``text`` completes the sentence "it must be ..."."""

    text: str
    holds: Callable[[Any], bool]


def above(low: float) -> Rule:
    return Rule(f"above {low}", lambda x: x > low)


def at_least(low: float) -> Rule:
    return Rule(f"at least {low}", lambda x: x >= low)


def between(low: float, high: float) -> Rule:
    return Rule(f"between {low} and {high}", lambda x: low <= x <= high)


def each(rule: Rule) -> Rule:
    """The rule for every item of a tuple."""
    return Rule(f"{rule.text} in every item", lambda x: len(x) > 0 and all(rule.holds(item) for item in x))


def ruled(default: Any, rule: Rule) -> Any:
    """A dataclass field with a range. A value of None is not checked."""
    return dataclasses.field(default=default, metadata={"rule": rule})


@functools.cache
def hints(cls: type) -> dict[str, Any]:
    """Field name -> type of a dataclass."""
    found = typing.get_type_hints(cls)
    return {field.name: found[field.name] for field in dataclasses.fields(cls)}


def leaves(cls: type, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, type) of every value below a dataclass."""
    for name, hint in hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{path}{name}.")
        else:
            yield path + name, hint


def nearest(word: str, choices: typing.Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing if no choice is near."""
    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def nearest_key(key: str, cls: type) -> str:
    """A hint for an unknown dotted key: a key spelt nearly so, or one of the same name in another section."""
    known = [name for name, _ in leaves(cls)]
    last = key.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]
    return f" (did you mean {elsewhere[0]!r}?)" if elsewhere else nearest(key, [*known, *_sections(cls)])


def _sections(cls: type, path: str = "") -> Iterator[str]:
    for name, hint in hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield path + name
            yield from _sections(typing.cast(type, hint), f"{path}{name}.")


def options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of ``X | Y | None``; a plain type is its only alternative."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else (hint,)


def type_text(hint: Any) -> str:
    """A type in words, for error messages."""
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", dict: "a dict", type(None): "None"}
    parts = []
    for option in options(hint):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            parts.append("one of " + ", ".join(repr(choice) for choice in args))
        elif origin is tuple and args[-1] is Ellipsis:
            parts.append(f"a tuple, each item {type_text(args[0])}")
        elif origin is tuple:
            parts.append(f"a tuple of {len(args)}, each item {type_text(args[0])}")
        else:
            parts.append(names[origin or option])
    return " or ".join(parts)


def fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether the value is of the type, and the value in that very type (int -> float, list -> tuple)."""
    for option in options(hint):
        ok, fitted = _fit_one(value, option)
        if ok:
            return True, fitted
    return False, value


def _fit_one(value: Any, hint: Any) -> tuple[bool, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args), value
    if origin is tuple:
        return _fit_tuple(value, args)
    if hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and value == value, float(value) if number else value  # a NaN fits nothing
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    if (origin or hint) is dict:
        return isinstance(value, Mapping), _plain(value)
    return isinstance(value, hint), value


def _plain(value: Any) -> Any:
    """With keys as JSON writes them, and tuples for lists, as a module needs them that is to be hashed."""
    if isinstance(value, Mapping):
        return {json.dumps(key) if isinstance(key, int) else key: _plain(item) for key, item in value.items()}
    return tuple(_plain(item) for item in value) if isinstance(value, list | tuple) else value


def _strange(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """(where, message) of all that would not come back from JSON as it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{place}.{key}", f"{place} has the key {_short(key)}: it must be a text or a whole number"
            yield from _strange(item, f"{place}.{key}")
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            yield from _strange(item, f"{place}[{i}]")
    elif not (value is None or isinstance(value, str) or (isinstance(value, int | float) and value == value)):
        near = f" (did you mean {os.fspath(value)!r}?)" if isinstance(value, os.PathLike) else ""
        yield place, f"{place} = {_short(value)}: it must be a text, a number, True, False, None, a list or a dict, as JSON has them{near}"


def _fit_tuple(value: Any, args: tuple[Any, ...]) -> tuple[bool, Any]:
    if not isinstance(value, list | tuple):
        return False, value
    items = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
    fitted = [fit(item, hint) for item, hint in zip(value, items, strict=False)]
    return len(items) == len(value) and all(ok for ok, _ in fitted), tuple(item for _, item in fitted)


def read(cls: type, tree: Any, errors: dict[str, str], *, root: type | None = None, path: str = "") -> Any:
    """The dataclass filled from the tree; a missing or wrong value becomes its default, and a wrong one an error.

    Args:
      cls: the dataclass to fill.
      tree: nested mapping of plain values.
      errors: key -> message, added to.
      root: the outermost dataclass (for hints at keys of other sections); path: where ``cls`` stands in it ("optimizer.").
    """
    root = root or cls
    if not isinstance(tree, Mapping):
        errors[path.rstrip(".")] = f"{path.rstrip('.')} = {_short(tree)}: this is a section with the keys {', '.join(hints(cls))}"
        return cls()
    for key in tree:
        if key not in hints(cls):
            near = nearest(str(key), hints(cls))
            near = near.replace("mean '", f"mean '{path}") if near else nearest_key(f"{path}{key}", root)
            errors[f"{path}{key}"] = f"{path}{key} = {_short(tree[key])}: there is no such key{near}"
    values = {}
    for field in dataclasses.fields(cls):
        if field.name in tree:
            hint = hints(cls)[field.name]
            if dataclasses.is_dataclass(hint):
                values[field.name] = read(typing.cast(type, hint), tree[field.name], errors, root=root, path=f"{path}{field.name}.")
            else:
                ok, value = _checked(path + field.name, tree[field.name], hint, field.metadata.get("rule"), errors)
                values |= {field.name: value} if ok else {}
    return cls(**values)


def _checked(key: str, value: Any, hint: Any, rule: Rule | None, errors: dict[str, str]) -> tuple[bool, Any]:
    ok, fitted = fit(value, hint)
    if not ok:
        choices = [choice for option in options(hint) if typing.get_origin(option) is Literal for choice in typing.get_args(option)]
        near = nearest(value, choices) if isinstance(value, str) else ""
        errors[key] = f"{key} = {_short(value)}: it must be {type_text(hint)}{near}"
    elif rule and fitted is not None and not rule.holds(fitted):
        ok = False
        errors[key] = f"{key} = {_short(value)}: it must be {rule.text}"
    elif strange := dict(_strange(fitted, key)):
        ok = False
        errors |= strange
    return ok, fitted


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse(text: str, hint: Any) -> Any:
    """A command-line text as a value, guided by the key's type; a text that is no literal stays a text (and fails the check later)."""
    kinds = options(hint)
    if text in ("None", "null") and type(None) in kinds:
        return None
    if bool in kinds and text.lower() in ("true", "false"):
        return text.lower() == "true"
    wants_text = str in kinds or any(typing.get_origin(kind) is Literal for kind in kinds)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    if wants_text and not isinstance(value, str):
        return text  # a folder may be called 2024
    one_tuple = any(typing.get_origin(kind) is tuple for kind in kinds) and isinstance(value, int | float)
    return (value,) if one_tuple else value
