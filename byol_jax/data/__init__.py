"""Data: sources of examples, their order, and the numpy batches made of them. Importing this imports neither TensorFlow nor jax."""

from byol_jax.data.arrays import ArraySource, InMemory, digits, from_arrays, idx, npz
from byol_jax.data.files import FolderSource, folder
from byol_jax.data.mixed import Mixture, mixture
from byol_jax.data.order import Shard
from byol_jax.data.pairs import Pairs, pairs, sts_tfds
from byol_jax.data.pipeline import eval_batches, index_batches, train_batches
from byol_jax.data.prefetch import Batches
from byol_jax.data.records import tfds
from byol_jax.data.retrieval import Retrieval, beir, retrieval
from byol_jax.data.slices import parse as parse_split
from byol_jax.data.slices import sliced
from byol_jax.data.source import BadImage, Source, content_of, labels_of, num_classes, spread, subset
from byol_jax.data.texts import TextSource, from_texts, text_files, tfds_texts
from byol_jax.data.tokens import Tokenizer, TokenSource, tokenised
from byol_jax.data.vocabulary import train_tokenizer

__all__ = [
    "ArraySource",
    "BadImage",
    "Batches",
    "FolderSource",
    "InMemory",
    "Mixture",
    "Pairs",
    "Retrieval",
    "Shard",
    "Source",
    "TextSource",
    "TokenSource",
    "Tokenizer",
    "beir",
    "content_of",
    "digits",
    "eval_batches",
    "folder",
    "from_arrays",
    "from_texts",
    "idx",
    "index_batches",
    "labels_of",
    "mixture",
    "npz",
    "num_classes",
    "pairs",
    "parse_split",
    "retrieval",
    "sliced",
    "spread",
    "sts_tfds",
    "subset",
    "text_files",
    "tfds",
    "tfds_texts",
    "tokenised",
    "train_batches",
    "train_tokenizer",
]
