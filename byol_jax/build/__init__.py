"""From a checked configuration to objects, runs and results. Everything above it is words (``cli``), everything below it is code."""

from byol_jax.build.compress import LEVELS, Settings
from byol_jax.build.compressed import compressed
from byol_jax.build.convert import READERS, convert
from byol_jax.build.embedding import embed
from byol_jax.build.evaluations import EVALUATIONS, evaluation
from byol_jax.build.export import FORMATS, export
from byol_jax.build.kept import read_spec
from byol_jax.build.methods import byol
from byol_jax.build.objects import (
    encoder,
    labelled_source,
    learning_rate,
    num_classes,
    optimizer,
    own,
    recipe,
    steps,
    tau,
    test_source,
    train_source,
    training_views,
    warmup_steps,
)
from byol_jax.build.records import convert_data, verify_data
from byol_jax.build.runs import claim, farewell, load_encoder, load_sentence_encoder, pretrain, report
from byol_jax.build.search import search
from byol_jax.build.show import describe
from byol_jax.build.subject import sentence_encoders
from byol_jax.build.sweep import sweep
from byol_jax.build.texts import learn_tokenizer

__all__ = [
    "EVALUATIONS",
    "FORMATS",
    "LEVELS",
    "READERS",
    "Settings",
    "byol",
    "claim",
    "compressed",
    "convert",
    "convert_data",
    "describe",
    "embed",
    "encoder",
    "evaluation",
    "export",
    "farewell",
    "labelled_source",
    "learn_tokenizer",
    "learning_rate",
    "load_encoder",
    "load_sentence_encoder",
    "num_classes",
    "optimizer",
    "own",
    "pretrain",
    "read_spec",
    "recipe",
    "report",
    "search",
    "sentence_encoders",
    "steps",
    "sweep",
    "tau",
    "test_source",
    "train_source",
    "training_views",
    "verify_data",
    "warmup_steps",
]
