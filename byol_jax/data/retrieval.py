"""Queries, documents and which documents answer which query: what retrieval is judged by. BEIR's format (arXiv 2104.08663)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from byol_jax.data.arrays import existing
from byol_jax.data.lines import BadLine, each_row, filled, finite
from byol_jax.data.source import LOG

_RELEVANCE = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Retrieval:
    """Q queries and N documents.

    Attributes:
      query_ids, queries: Q ids and texts; each has one relevant document at least.
      document_ids, documents: N ids and texts.
      relevance: query id -> document id -> how relevant it is, above 0; documents that are not named are not relevant.
      left_out: how many queries there were besides, without a relevant document.
    """

    query_ids: list[str]
    queries: list[str]
    document_ids: list[str]
    documents: list[str]
    relevance: Mapping[str, Mapping[str, float]]
    left_out: int = 0

    def __post_init__(self) -> None:
        for what, ids, texts in (("query", self.query_ids, self.queries), ("document", self.document_ids, self.documents)):
            if len(ids) != len(texts) or len(set(ids)) != len(ids):
                raise ValueError(
                    f"retrieval: {len(texts)} texts with {len(set(ids))} different {what} ids of {len(ids)}; expected one each"
                )
        known = set(self.document_ids)
        for query in self.query_ids:
            if not self.relevance.get(query):
                raise ValueError(f"retrieval: query {query!r} has no relevant document; leave it out")
            for document, gain in self.relevance[query].items():
                if document not in known or not gain > 0:
                    raise ValueError(
                        f"retrieval: query {query!r}: document {document!r} of relevance {gain:g} is not there, or not above 0"
                    )


def beir(path: str | Path, split: str = "test", *, max_bad_share: float = 0.01) -> Retrieval:
    """A data set in BEIR's format: a folder with ``queries.jsonl``, ``corpus.jsonl`` and ``qrels/<split>.tsv``.

    Arguments and errors as for ``retrieval``; the queries of other splits are left out, since they have no relevant document in this one.
    """
    root = existing(path, "folder")
    return retrieval(root / "queries.jsonl", root / "corpus.jsonl", root / "qrels" / f"{split}.tsv", max_bad_share=max_bad_share)


def retrieval(queries: str | Path, documents: str | Path, relevance: str | Path, *, max_bad_share: float = 0.01) -> Retrieval:
    """Queries, documents and relevance from three .tsv, .csv or .jsonl files; see ``lines.each_row`` for the formats.

    Args:
      queries: columns (or keys) "_id" and "text".
      documents: the same, and "title" if there is one: it is put before the text, as BEIR does.
      relevance: columns "query-id", "corpus-id" and "score"; with exactly these three the line of names may be missing. A score of 0 or
        less is not relevant. Queries without a relevant document are left out and counted.
      max_bad_share: largest share of each file's lines that may be bad (another number of columns, an empty text, an id that comes
        twice or, in ``relevance``, does not exist, a score that is no number, bytes that are not UTF-8); they are left out, with a warning
        in the log.

    Raises:
      ValueError: no such file, a column that is not there, more bad lines (the first are named), or no query with a relevant document.
    """
    asked, corpus = _texts(queries, "query", max_bad_share), _texts(documents, "document", max_bad_share)
    judged = _relevance(relevance, asked, corpus, max_bad_share)
    kept = [query for query in asked if query in judged]
    if not kept:
        raise ValueError(f"{relevance}: gives none of the {len(asked)} queries a relevant document")
    if left_out := len(asked) - len(kept):
        LOG.info("%s: %d of %d queries have no relevant document; left out", relevance, left_out, len(asked))
    return Retrieval(kept, [asked[query] for query in kept], list(corpus), list(corpus.values()), judged, left_out)


def _texts(path: str | Path, what: str, max_bad_share: float) -> dict[str, str]:
    """Text by id, in the file's order."""
    found: dict[str, str] = {}

    def use(name: str, text: str, title: str = "") -> None:
        name = filled(name, "_id")
        if name in found:
            raise BadLine(f"_id {name[:40]!r} comes a second time")
        found[name] = filled(f"{title} {text}", "text")

    each_row(path, ("_id", "text"), use, optional=("title",) if what == "document" else (), max_bad_share=max_bad_share)
    if not found:
        raise ValueError(f"{path}: holds no {what}")
    return found


def _relevance(
    path: str | Path, queries: Mapping[str, str], documents: Mapping[str, str], max_bad_share: float
) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}

    def use(query: str, document: str, score: str) -> None:
        query, document, value = filled(query, _RELEVANCE[0]), filled(document, _RELEVANCE[1]), finite(score, _RELEVANCE[2])
        for what, name, known in (("query", query, queries), ("document", document, documents)):
            if name not in known:
                raise BadLine(f"there is no {what} {name[:40]!r}; the first is {next(iter(known))[:40]!r}")
        if value > 0:
            found.setdefault(query, {})[document] = value

    each_row(path, _RELEVANCE, use, number="score", max_bad_share=max_bad_share)
    return found
