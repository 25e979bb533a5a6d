"""One page that shows a run: curves, views, a map of the embeddings, neighbours, evaluations, configuration."""

from byol_jax.report.write import write_report

__all__ = ["write_report"]
