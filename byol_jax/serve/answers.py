"""What the endpoints answer, as OpenAPI shows it. Answers themselves are written without a pass through these models, which is dear."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Embeddings(BaseModel):
    """One embedding an example, in the order of the request."""

    embeddings: list[list[float]] = Field(description="float32 written so that they read back the same")
    dimensions: int


class Guess(BaseModel):
    label: int
    name: str = Field(alias="class")
    probability: float


class Classes(BaseModel):
    """For each example its most probable classes, the most probable first."""

    results: list[list[Guess]]


class Neighbour(BaseModel):
    cosine: float
    path: str | None = Field(None, description="of an index of images: the file, relative to its folder")
    text: str | None = Field(None, description="of an index of texts: the text itself")
    index: int | None = Field(None, description="position in what was embedded")
    label: int | None = Field(None, description="missing where there is none")
    name: str | None = Field(None, alias="class")


class Neighbours(BaseModel):
    """For each example its nearest neighbours in the index, the nearest first."""

    results: list[list[Neighbour]]


class Health(BaseModel):
    status: str
    kind: str = Field(description="images or texts")
    dimensions: int
    step: int | None = Field(description="of the checkpoint")
    classify: bool
    similar: bool
    key: bool = Field(description="whether requests must bring an API key")
    limits: dict[str, float]


class Fault(BaseModel):
    code: str = Field(description="a word for programs")
    message: str = Field(description="for people: what was asked for, and the rule it breaks")
    limit: float | None = None
    value: float | None = None


class Error(BaseModel):
    error: Fault


ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": Error, "description": "no API key, or a wrong one"},
    404: {"model": Error, "description": "the service was started without what this needs"},
    408: {"model": Error, "description": "the body took too long to arrive"},
    413: {"model": Error, "description": "too many bytes, pixels or characters"},
    415: {"model": Error, "description": "a Content-Type that is not taken"},
    422: {"model": Error, "description": "no images or texts, too many, or some that cannot be read"},
    503: {"model": Error, "description": "too many requests at once; Retry-After says when to come again"},
    504: {"model": Error, "description": "not answered in time"},
}
