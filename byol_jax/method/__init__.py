"""BYOL itself: the method as pure functions over pytrees. Start with ``step.py``."""

from byol_jax.method import diagnostics
from byol_jax.method.adversary import Adversary
from byol_jax.method.attack import Ball
from byol_jax.method.denoise import Denoised, bounded, of_pairs
from byol_jax.method.heads import MLP, NoHead
from byol_jax.method.loss import Loss, MemoryLoss, contrastive_loss, normalized_regression_loss, regression_loss, similarity_loss, summed
from byol_jax.method.network import Byol, Network, Outputs
from byol_jax.method.optimizer import adamw, lars, multiply_rates, sgd
from byol_jax.method.probe import cross_entropy
from byol_jax.method.schedules import constant, cosine, warmup_cosine
from byol_jax.method.state import ByolState
from byol_jax.method.step import init, make_train_step
from byol_jax.method.supervision import let_through
from byol_jax.method.target import Target, Teacher, constant_decay, ema_decay

__all__ = [
    "MLP",
    "Adversary",
    "Ball",
    "Byol",
    "ByolState",
    "Denoised",
    "Loss",
    "MemoryLoss",
    "Network",
    "NoHead",
    "Outputs",
    "Target",
    "Teacher",
    "adamw",
    "bounded",
    "constant",
    "constant_decay",
    "contrastive_loss",
    "cosine",
    "cross_entropy",
    "diagnostics",
    "ema_decay",
    "init",
    "lars",
    "let_through",
    "make_train_step",
    "multiply_rates",
    "normalized_regression_loss",
    "of_pairs",
    "regression_loss",
    "sgd",
    "similarity_loss",
    "summed",
    "warmup_cosine",
]
