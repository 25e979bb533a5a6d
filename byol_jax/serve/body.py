"""From the body of a request to encoded images or texts."""

from __future__ import annotations

import base64
import binascii
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from byol_jax.serve.limits import Limits, Refused, check

JSON, FORM = "application/json", "multipart/form-data"
ACCEPTED = {"images": ("image/*", FORM, JSON), "texts": ("text/plain", JSON)}


class Images(BaseModel):
    """Images, each a JPEG, PNG, WebP or BMP file in base64."""

    model_config = ConfigDict(extra="forbid")
    images: list[str] = Field(description="files in base64", examples=[["iVBORw0KGgo..."]])


class Texts(BaseModel):
    """Texts in any language that the run's tokenizer knows; each is cut to the length that the run was trained with."""

    model_config = ConfigDict(extra="forbid")
    texts: list[str] = Field(examples=[["a first sentence", "another one"]])


Kind = TypeVar("Kind", Images, Texts)


def documented(kind: str) -> dict[str, Any]:
    """The body in OpenAPI's words."""
    binary = {"type": "string", "format": "binary"}
    files = {"type": "object", "additionalProperties": {"type": "array", "items": binary}, "description": "each part is an image"}
    schemas: dict[str, dict[str, Any]] = {
        "images": {"image/*": binary, FORM: files, JSON: Images.model_json_schema()},
        "texts": {"text/plain": {"type": "string", "description": "one text"}, JSON: Texts.model_json_schema()},
    }
    return {"requestBody": {"required": True, "content": {name: {"schema": schema} for name, schema in schemas[kind].items()}}}


async def examples(request: Request, kind: str, limits: Limits) -> list[bytes] | list[str]:
    """The images or texts of a request. Refused for a body that is too large, of another type, or holds none or too many."""
    media, options = parse_options_header(request.headers.get("content-type", ""))
    name = media.decode("latin-1").lower()
    if not _accepted(name, kind):
        is_of = "no Content-Type" if not name else f"Content-Type {name}"
        text = f"{is_of}: the run in this service is one of {kind}; it takes {', '.join(ACCEPTED[kind])}"
        raise Refused(415, "wrong_type", text)
    body = await _read(request, limits.bytes)
    if name == FORM:
        found: list[bytes] | list[str] = _parts(body, options.get(b"boundary", b""), limits.count)
    elif name == JSON:
        found = _texts(body) if kind == "texts" else _images(body)
    else:
        found = [_text(body)] if kind == "texts" else [body]
    if not found:
        raise Refused(422, "none", f"there are no {kind} in the request; give 1 to {limits.count}", limit=limits.count, value=0)
    check(422, "too_many", len(found), limits.count, f"{kind} in one request")
    return found


def _accepted(name: str, kind: str) -> bool:
    return name in ACCEPTED[kind] or (kind == "images" and name.startswith("image/"))


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        check(413, "too_many_bytes", int(declared[:20]), limit, "bytes in the body")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        check(413, "too_many_bytes", len(body), limit, "bytes of the body so far")
    return bytes(body)


def _parts(body: bytes, boundary: bytes, most: int) -> list[bytes]:
    parts: list[bytearray] = []
    ended = False

    def begin() -> None:
        parts.append(bytearray())
        check(422, "too_many", len(parts), most, "images in one request, and more to come")

    def add(data: bytes, start: int, end: int) -> None:
        parts[-1].extend(data[start:end])

    def end() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, {"on_part_begin": begin, "on_part_data": add, "on_end": end})
        parser.write(body)
    except FormParserError as error:
        raise Refused(422, "bad_form", f"the form cannot be read: {error}") from None
    if not ended:
        raise Refused(422, "bad_form", "the form cannot be read: it ends in the middle of a part, or has no boundary")
    return [bytes(part) for part in parts]


def _images(body: bytes) -> list[bytes]:
    found = _json(Images, body).images
    try:
        return [base64.b64decode(one, validate=True) for one in found]
    except (binascii.Error, ValueError) as error:
        raise Refused(422, "bad_base64", f"images: {error}; each is the base64 of an image file, nothing before it") from None


def _texts(body: bytes) -> list[str]:
    return _json(Texts, body).texts


def _json(model: type[Kind], body: bytes) -> Kind:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        wanted = "images" if model is Images else "texts"
        raise Refused(422, "bad_json", f'{where}: {first["msg"]}; expected {{"{wanted}": [string, ...]}}') from None


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(422, "bad_text", f"the text is not UTF-8 ({error.reason} at byte {error.start})") from None
