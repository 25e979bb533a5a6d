"""An encoder behind HTTP (extra ``serve``): requests of many callers in few calls of fixed shapes, within limits.

``batcher`` and ``limits`` know no HTTP, ``model`` and ``index`` hold what is served, ``body`` reads a request, ``app`` answers it,
``server`` listens. Importing this imports none of the extra's packages.
"""

from byol_jax.serve.batcher import Batcher, Full
from byol_jax.serve.index import Index
from byol_jax.serve.limits import Limits, Refused
from byol_jax.serve.model import Model, image_model, text_model
from byol_jax.serve.server import serve

__all__ = ["Batcher", "Full", "Index", "Limits", "Model", "Refused", "image_model", "serve", "text_model"]
