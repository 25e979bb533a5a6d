"""Training: the loop and its law, what hooks into it, and ``pretrain``, the whole job in one call. Never imports TensorFlow itself."""

from byol_jax.train.hooks import CollapseMonitor, Evaluation, Hook, Judge, Stopped
from byol_jax.train.loop import Diverged, Fitted, fit
from byol_jax.train.pretrain import Run, pretrain

__all__ = ["CollapseMonitor", "Diverged", "Evaluation", "Fitted", "Hook", "Judge", "Run", "Stopped", "fit", "pretrain"]
