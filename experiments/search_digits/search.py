"""Digits: rate, decay of the target and batch size, judged by k-NN on a fifth of the training images."""

from byol_jax.config.search import Choice, Float, Int, Search

SEARCH = Search(
    title="Digits: rate, tau, batch size",
    config="configs/digits.py",
    changes={
        "data.split": "train[:80%]",
        "data.test_split": "train[80%:]",
        "epochs": 10,
        "optimizer.warmup_epochs": 1,
        "evaluation.every_epochs": 2,
    },
    space={
        "optimizer.learning_rate": Float(3e-4, 3e-2, log=True),
        "method.tau": Choice(0.9, 0.99, 0.996),
        "batch_size": Int(64, 256, step=64),
    },
    trials=20,
)
