"""Reads a pickle as data: NumPy arrays, numbers, texts, tuples, lists and dicts come out, and nothing in the file can run.

A pickle is a program. This is a machine of its own for the few instructions a checkpoint needs: what the file calls by name is never
imported, only looked up in ``allowed.CALLS``, whose entries build arrays and dicts. Everything else is refused. What is built never takes
more memory than a small multiple of the file.
"""

from __future__ import annotations

import mmap
import os
import pickletools
from collections.abc import Iterable
from typing import IO, Any, cast

import numpy as np

from byol_jax.convert.allowed import CALLS, Global, Record, Unfilled, array_of, is_plain, named, refuse, word
from byol_jax.convert.weights import ConvertError

_LONG_TEXT = 1 << 16  # protocol 2 writes the bytes of an array as a text, which is not asked for again
_TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
_VALUES = (*_TEXTS, "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def load(path: str | os.PathLike[str]) -> Any:
    """The content of a pickle of protocol 2 to 5; named tuples come out as dicts {field: value}, frozen mappings as dicts.

    Raises:
      ConvertError: it is no such pickle, is cut short, or asks for anything but arrays and containers; the message names it.
      OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(2)
        if not (len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5):
            hint = "; it looks like a PyTorch file" if head == b"PK" else ""
            raise ConvertError(f"{path}: {'is empty' if not size else f'is not a pickle (it begins with {head!r})'}{hint}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:  # unlike a file's, its read(n) never allocates n
            try:
                return _Machine(budget=size).run(pickletools.genops(cast("IO[bytes]", content)))  # it has what genops calls
            except ConvertError as error:
                raise ConvertError(f"{path}: {error}") from None
            except Exception as error:  # a hostile or damaged file may trip any line below in any way
                raise ConvertError(f"{path}: is cut short or damaged: {type(error).__name__}: {str(error)[:200]}") from None


class _Forgotten:
    """Stands in the memo for a long text."""


class _Machine:
    """A stack, its marks and the memo, as the pickle format describes them."""

    def __init__(self, budget: int) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = budget

    def run(self, instructions: Iterable[tuple[Any, Any, Any]]) -> Any:
        for code, argument, _ in instructions:
            name = code.name
            if name in _VALUES:
                self.stack.append(argument)
            elif name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name])
            elif name == "STOP":
                if len(self.stack) != 1 or self.marks:
                    raise ConvertError("is damaged: it ends with an unfinished object")
                return self.stack[0]
            elif name not in ("PROTO", "FRAME"):
                self._step(name, argument)
        raise ConvertError("is cut short")

    def spend(self, size: int) -> None:
        """What a call copies; a file that goes on copying one thing is a bomb."""
        self.budget -= size
        if self.budget < 0:
            refuse("builds more data than it holds")

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ConvertError("is damaged: it takes more than it put down")
        return self.stack.pop()

    def pop_marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _step(self, name: str, argument: Any) -> None:
        match name:
            case "MARK":
                self.marks.append(len(self.stack))
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST":
                self.stack.append([])
            case "TUPLE":
                self.stack.append(tuple(self.pop_marked()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple([self.pop() for _ in range(int(name[-1]))][::-1]))
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS":
                self._extend(self.pop_marked())
            case "SETITEM":
                self._update([self.pop(), self.pop()][::-1])
            case "SETITEMS":
                self._update(self.pop_marked())
            case "BINPUT" | "LONG_BINPUT":
                self._put(argument)
            case "MEMOIZE":
                self._put(len(self.memo))
            case "BINGET" | "LONG_BINGET":
                value = self.memo[argument]
                self.stack.append(refuse("asks twice for a long text") if value is _Forgotten else value)
            case "GLOBAL":
                self.stack.append(named(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                attribute, module = self.pop(), self.pop()
                self.stack.append(named(str(module), str(attribute)))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = self.pop(), self.pop()
                self.stack.append(self._call(name, callee, arguments))
            case "BUILD":
                self._build(self.pop())
            case _:
                refuse(f"uses the pickle instruction {name}")

    def _top(self, kind: type) -> Any:
        value = self.pop()
        if type(value) is not kind:
            refuse(f"adds items to a {word(value)}")
        self.stack.append(value)
        return value

    def _extend(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _update(self, pairs: list[Any]) -> None:
        target = self._top(dict)
        keys = pairs[::2]
        if not all(isinstance(key, str | int) for key in keys):
            refuse("has a dict whose keys are neither texts nor numbers")
        target.update(zip(keys, pairs[1::2], strict=True))

    def _put(self, key: int) -> None:
        value = self.stack[-1]
        if isinstance(value, Unfilled):
            value.keys.append(key)
        self.memo[key] = _Forgotten if isinstance(value, str) and len(value) > _LONG_TEXT else value

    def _call(self, instruction: str, callee: Any, arguments: Any) -> Any:
        if isinstance(callee, Record) and instruction == "NEWOBJ" and len(arguments) == len(callee.fields):
            self.spend(len(arguments))
            return dict(zip(callee.fields, arguments, strict=True))
        call = CALLS.get((callee.module, callee.name)) if isinstance(callee, Global) and instruction == "REDUCE" else None
        if call is None or not isinstance(arguments, tuple):
            refuse(f"calls {callee if isinstance(callee, Global) else word(callee)} in a way that builds no array or container")
        return call(self.spend, *arguments)

    def _build(self, state: Any) -> None:
        target = self.pop()
        if isinstance(target, Unfilled):
            array = array_of(state)
            self.memo.update(dict.fromkeys(target.keys, array))
            self.stack.append(array)
        elif isinstance(target, np.dtype):
            self.stack.append(target if is_plain(state) else refuse("has an array of structured or big-endian numbers"))
        else:
            refuse(f"sets attributes of a {word(target)}")
