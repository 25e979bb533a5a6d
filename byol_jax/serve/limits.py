"""What one request may ask for, and how it is told that it asked for more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """Attributes:
    bytes: of a request's body. pixels: of one image, read from its header before it is decoded. characters: of one text.
    count: images or texts in one request. seconds: for a body to arrive and be answered. neighbours: in one answer of ``/similar``.
    queue: images or texts that all callers may have here at once.
    """

    bytes: int = 16 * 2**20
    pixels: int = 50_000_000
    characters: int = 100_000
    count: int = 32
    seconds: float = 30.0
    neighbours: int = 100
    queue: int = 256

    def errors(self) -> list[str]:
        """What is wrong with these numbers; empty if nothing is."""
        found = [f"{name} = {value}: must be above 0" for name, value in vars(self).items() if value <= 0]
        if self.queue < self.count:
            found.append(f"queue = {self.queue}: must be at least count = {self.count}, or a full request never finds room")
        return found


class Refused(Exception):
    """An answer that is an error.

    Args:
      status: of HTTP.
      code: a word that programs can tell it by.
      message: what was asked for, and the rule that it breaks.
      facts: the same as numbers: ``limit``, ``value``.
    """

    def __init__(self, status: int, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.facts = status, code, facts

    def to_json(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": str(self), **self.facts}}


def check(status: int, code: str, value: int, limit: int, what: str) -> None:
    """Raises Refused where the value is above the limit; ``what`` is counted, as in "pixels in images[0]"."""
    if value > limit:
        raise Refused(status, code, f"{value:,} {what}; at most {limit:,} are taken", limit=limit, value=value)
