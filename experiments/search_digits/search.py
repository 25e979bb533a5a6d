"""Digits: rate, decay of the target and batch size, judged by ten labels a class on a fifth of the training images."""

from byol_jax.config.search import Choice, Float, Int, Search

SEARCH = Search(
    title="Digits: rate, tau, batch size",
    config="configs/digits.py",
    changes={
        "data.split": "train[:80%]",
        "data.test_split": "train[80%:]",
        "epochs": 30,
        "optimizer.warmup_epochs": 1.5,
        "evaluation.every_epochs": 5,
    },
    space={
        "optimizer.learning_rate": Float(1.0, 16.0, log=True),
        "method.tau": Choice(0.9, 0.97, 0.99, 0.996),
        "batch_size": Int(64, 256, step=64),
    },
    trials=16,
    metric="linear_10",
)
