"""BYOL itself: the method as pure functions over pytrees. Start with ``step.py``."""

from byol_jax.method import diagnostics
from byol_jax.method.heads import MLP, NoHead
from byol_jax.method.loss import contrastive_loss, normalized_regression_loss, regression_loss
from byol_jax.method.network import Byol, Loss, Network, Outputs
from byol_jax.method.optimizer import adamw, lars, multiply_rates, sgd
from byol_jax.method.schedules import constant, cosine, warmup_cosine
from byol_jax.method.state import ByolState
from byol_jax.method.step import init, make_train_step
from byol_jax.method.target import constant_decay, ema_decay

__all__ = [
    "MLP",
    "Byol",
    "ByolState",
    "Loss",
    "Network",
    "NoHead",
    "Outputs",
    "adamw",
    "constant",
    "constant_decay",
    "contrastive_loss",
    "cosine",
    "diagnostics",
    "ema_decay",
    "init",
    "lars",
    "make_train_step",
    "multiply_rates",
    "normalized_regression_loss",
    "regression_loss",
    "sgd",
    "warmup_cosine",
]
