"""Retrieval: do the documents that answer a query lie nearest to it? Exact search by cosine; recall@k, MRR@10 and nDCG@10.

The metrics are those of trec_eval, which BEIR (arXiv 2104.08663) reports, averaged over the queries:

- recall@k: share of a query's relevant documents among the first k;
- MRR@10: 1 / rank of the first relevant document, 0 if it is not among the first 10;
- nDCG@10: sum of relevance / log2(rank + 1) over the first 10, divided by the same sum of the best possible ranking.

Equal cosines rank in the order of the documents (in trec_eval: by their ids, backwards).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from byol_jax.data.retrieval import Retrieval
from byol_jax.evaluate.embedded import Embed, embedded
from byol_jax.evaluate.knn import nearest
from byol_jax.evaluate.result import Result, percent

CUT = 10  # of MRR and nDCG
DOCUMENTS = 4096  # embedded at a time: 330 MB of TF-IDF's 20,000 columns


@dataclass(frozen=True)
class RetrieveResult(Result):
    """By name: recall by k, MRR@10 and nDCG@10, as shares. ``left_out`` queries had no relevant document and count nowhere."""

    recall: dict[str, dict[int, float]]
    mrr_10: dict[str, float]
    ndcg_10: dict[str, float]
    queries: int
    left_out: int
    documents: int

    def rows(self) -> tuple[str, Sequence[str], Sequence[Sequence[str]]]:
        without = f" ({self.left_out:,} without a relevant document left out)" if self.left_out else ""
        title = f"Retrieval, {self.queries:,} queries{without}, {self.documents:,} documents"
        ks = next(iter(self.recall.values()))
        headings = ("features", *(f"recall@{k} %" for k in ks), f"MRR@{CUT} %", f"nDCG@{CUT} %")
        cells = [(name, *map(percent, (*by_k.values(), self.mrr_10[name], self.ndcg_10[name]))) for name, by_k in self.recall.items()]
        return title, headings, cells


def retrieve(
    embeds: Mapping[str, Embed], retrieval: Retrieval, k: int | Sequence[int] = (1, 5, 10, 100), *, skip_own_id: bool = False
) -> RetrieveResult:
    """How well each of the embeddings finds the relevant documents.

    Args:
      embeds: name -> (texts -> float32 [N, D]); queries and documents go through the same function.
      k: of recall; a k beyond the number of documents takes all of them.
      skip_own_id: leave out the document whose id is the query's, for sets whose queries are documents themselves (BEIR always does so).

    Raises:
      ValueError: nothing to evaluate, a k below 1, or embeddings of a wrong shape or not finite.
    """
    ks = (k,) if isinstance(k, int) else tuple(k)
    if not embeds or not retrieval.queries or not ks or min(ks) < 1:
        raise ValueError(
            f"retrieve: {len(embeds)} embeddings, {len(retrieval.queries)} queries, k={k}; give one of each, every k at least 1"
        )
    recall, mrr, ndcg = {}, {}, {}
    for name, embed in embeds.items():
        ranked = search(embed, retrieval.queries, retrieval.documents, k=max(*ks, CUT) + skip_own_id, name=name)
        found = [scores(*gains(retrieval, q, row.tolist(), skip_own_id), ks) for q, row in zip(retrieval.query_ids, ranked, strict=True)]
        *at_k, mrr[name], ndcg[name] = (float(column) for column in np.mean(found, axis=0))
        recall[name] = dict(zip(ks, at_k, strict=True))
    return RetrieveResult(recall, mrr, ndcg, len(retrieval.queries), retrieval.left_out, len(retrieval.documents))


def search(embed: Embed, queries: Sequence[str], documents: Sequence[str], *, k: int, name: str = "embed") -> np.ndarray:
    """int64 [Q, min(k, N)], positions of the documents of the highest cosine with each query, the earlier first among equals.

    The documents are embedded 4,096 at a time and not kept: N is bound by time alone, also for TF-IDF with its many columns.
    """
    query = embedded(embed, queries, name=name)
    cosine, index = np.zeros((len(query), 0), np.float32), np.zeros((len(query), 0), np.int64)
    for start in range(0, len(documents), DOCUMENTS):
        near, where = nearest(query, embedded(embed, documents[start : start + DOCUMENTS], name=name), k=k)
        cosine, index = np.concatenate([cosine, near], axis=1), np.concatenate([index, where + start], axis=1)
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :k]
        cosine, index = np.take_along_axis(cosine, order, 1), np.take_along_axis(index, order, 1)
    return index


def gains(retrieval: Retrieval, query: str, ranked: Sequence[int], skip_own_id: bool) -> tuple[np.ndarray, np.ndarray]:
    """(relevance of the documents in the order found, of all relevant ones from the highest down), both float64."""
    relevant = retrieval.relevance[query]
    names = (retrieval.document_ids[i] for i in ranked)
    found = [relevant.get(name, 0.0) for name in names if not (skip_own_id and name == query)]
    return np.array(found, np.float64), np.array(sorted(relevant.values(), reverse=True), np.float64)


def scores(found: np.ndarray, best: np.ndarray, ks: Sequence[int]) -> list[float]:
    """recall@k for each k, MRR@10 and nDCG@10 of one query; arguments as ``gains`` returns them."""
    hits = found > 0
    recall = [float(hits[:k].sum() / len(best)) for k in ks]
    first = np.flatnonzero(hits[:CUT])
    mrr = 1 / (1 + int(first[0])) if len(first) else 0.0
    return [*recall, mrr, _dcg(found[:CUT]) / _dcg(best[:CUT])]


def _dcg(gain: np.ndarray) -> float:
    return float((gain / np.log2(np.arange(2, len(gain) + 2))).sum())
