"""What can be configured: a tree of frozen dataclasses with the paper's values (Table 6, Appendix B) as defaults.

Annotations and rules are the schema of a config file. A value of None means "not set". ``Form`` is what a config file writes, ``Spec``
the same with the views' preset filled in.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

from byol_jax import views as recipes
from byol_jax.config.check import above, at_least, between, each, hints, ruled
from byol_jax.config.toolkit import AdversarySpec, DenoiseSpec, TeacherSpec


@dataclass(frozen=True)
class PartSpec:
    """One part of ``data.mix``: which examples, how many, and what is shown of their labels; what is None is as in ``data``."""

    split: str | None = None
    source: str | None = None
    path: str | None = None
    name: str | None = None
    weight: float = ruled(1.0, above(0))
    labels: bool | str = True  # False: hidden; a name: a label set of its own


@dataclass(frozen=True)
class DataSpec:
    """Where examples come from.

    ``source`` "digits" needs nothing; "idx" and "folder" take ``path`` as a folder, "npz" as a file, "text" as either; "tfds" takes
    ``name`` (and ``path`` as its data_dir); "my_pkg.mod:Name" is called as ``Name(split, **args)``, ``args`` as of an encoder. Test images
    of a folder, and test texts of files, stand in ``test_path``, their classes being those of ``path``. A split may be a part,
    "train[:90%]", of TFDS's own order or else of a fixed shuffled one; of a folder or of text files, of what stands in ``path``.

    ``mix`` are the parts that the encoder learns from instead, by weight: dicts of ``PartSpec``'s keys, such as
    ``({"weight": 3, "labels": False}, {"weight": 1, "split": "train[:1%]"})``. Evaluation takes ``split`` or ``labelled_split`` as ever.
    """

    source: str = "digits"
    path: str | None = None
    test_path: str | None = None
    name: str | None = None
    split: str = "train"
    test_split: str | None = None
    labelled_split: str | None = None  # what k-NN and linear evaluation learn from, where ``split`` has no labels; None = split
    in_memory: bool = False  # tfds only: decode everything once and keep it as one array
    args: dict[str, Any] = field(default_factory=dict)
    max_bad_share: float = ruled(0.01, between(0, 1))  # of the files seen, before the run fails
    augment_on: Literal["device", "host"] = "device"
    mix: tuple[dict[str, Any], ...] = ()
    on_device: bool = False  # images in memory are uploaded once, split over the devices, and stay there; the host sends indices


def _changes(cls: type) -> Any:
    """A dataclass with every field of ``cls``, each None: as the preset has it."""
    return dataclasses.make_dataclass(
        f"{cls.__name__}Changes", [(name, hint | None, None) for name, hint in hints(cls).items()], frozen=True
    )


ViewChanges: Any = _changes(recipes.View)
TextViewChanges: Any = _changes(recipes.TextView)


@dataclass(frozen=True)
class ViewsForm:
    """``views`` as a config file writes it: a preset, and what differs from it; ranges are in ``Views.errors``."""

    preset: str = "imagenet"
    size: int = 224
    view1: ViewChanges = field(default_factory=ViewChanges)
    view2: ViewChanges = field(default_factory=ViewChanges)
    eval_crop: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    function: str | None = None  # your own pair of views, in tf.data


@dataclass(frozen=True)
class ViewsSpec(recipes.Views):
    """The whole recipe, and where it came from."""

    preset: str = "imagenet"
    function: str | None = None  # your own pair of views, in tf.data

    def recipe(self) -> recipes.Views:
        """The recipe alone."""
        return recipes.Views(**{name: getattr(self, name) for name in hints(recipes.Views)})


@dataclass(frozen=True)
class _TextFiles:
    """Where texts stand in their files, and the tokens made of them."""

    tokenizer: str | None = None  # a tokenizer.json; `byol-jax data tokenizer` learns one from the training texts
    column: str = "text"  # of JSONL, CSV, TSV; of TFDS the feature
    label_column: str = "label"  # a file without it is unlabelled
    cache: str | None = "~/.cache/byol_jax/tokens"  # token ids are kept here; None: made anew by each run


@dataclass(frozen=True)
class TextForm(_TextFiles):
    """``text`` as a config file writes it: a ``preset`` makes the run one of texts, None one of images; ranges in ``TextViews.errors``."""

    preset: str | None = None
    length: int | None = ruled(None, at_least(1))  # tokens of a view, special ones included
    view1: TextViewChanges = field(default_factory=TextViewChanges)
    view2: TextViewChanges = field(default_factory=TextViewChanges)


@dataclass(frozen=True)
class TextSpec(_TextFiles):
    """The recipe of texts, whole but for the tokenizer's special tokens; unused where ``preset`` is None."""

    preset: str | None = None
    length: int = 128
    view1: recipes.TextView = field(default_factory=recipes.TextView)
    view2: recipes.TextView = field(default_factory=recipes.TextView)


@dataclass(frozen=True)
class TransformerSpec:
    """What an encoder of texts is made of; sizes are those of its name, but for "transformer", which has your own.

    None of pooling and dropouts: as the folder of "huggingface" says, else "mean" and 0.1.
    """

    layers: int | None = ruled(None, at_least(1))
    hidden: int | None = ruled(None, at_least(1))
    heads: int | None = ruled(None, at_least(1))
    mlp: int | None = ruled(None, at_least(1))
    head_width: int | None = ruled(None, at_least(1))  # of "transformer"; None: hidden / heads
    positions: int = ruled(512, at_least(1))  # the longest text that it can read
    pooling: Literal["mean", "cls", "attention"] | None = None
    dropout: float | None = ruled(None, between(0, 0.9))  # tells the two views apart where they hold the same tokens
    attention_dropout: float | None = ruled(None, between(0, 0.9))
    scan: bool = False  # one compiled layer for all of them: compiles faster


@dataclass(frozen=True)
class EncoderSpec:
    """``name`` is a ResNet of the paper, "resnet" for your own ``stages`` and ``channels``, or "my_pkg.mod:Name" called with ``args``:
    values that JSON holds, with tuples for lists and texts for keys.

    Of texts it is a BERT by size, "transformer" for your own sizes, or "huggingface": the model in ``path``, from whose weights it starts.
    """

    name: str = "resnet50"
    width: int = ruled(1, between(1, 16))
    stem: Literal["imagenet", "small"] = "imagenet"  # 7x7 stride 2 and a pool, or 3x3 stride 1 for images up to about 64 px
    block: Literal["basic", "bottleneck"] | None = None
    stages: tuple[int, ...] | None = ruled(None, each(at_least(1)))
    channels: tuple[int, ...] | None = ruled(None, each(at_least(1)))
    stem_channels: int | None = ruled(None, at_least(1))  # of "resnet", before width; None: as the first stage, at most 64
    zero_init_last_bn: bool = False
    padding: Literal["same", "symmetric"] = "same"  # symmetric: weights from PyTorch
    shortcut: Literal["first", "shape"] = "first"  # projection in the first block of a stage, or only where the shape changes (PyTorch)
    norm: Literal["batch", "group"] = "batch"  # group: GroupNorm and standardised kernels, no batch statistics
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the computation; parameters and batch statistics stay float32
    transformer: TransformerSpec = field(default_factory=TransformerSpec)
    path: str | None = None  # of "huggingface": a folder with config.json and model.safetensors
    drop_path: float = ruled(0.0, between(0, 0.9))  # how often the last block's branch is dropped in training, earlier ones linearly less
    fake_int8: bool = False  # train as if weights and activations had 8 bits (extra "compress")
    remat: bool = False  # compute each block again on the way back instead of keeping it: less memory, a third more operations
    args: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadSpec:
    """An MLP of ``layers`` linear layers; a predictor of 0 layers is none."""

    hidden: int = ruled(4096, at_least(1))
    out: int = ruled(256, at_least(1))
    layers: int = ruled(2, between(0, 8))
    norm: Literal["batch", "group", "none"] = "batch"  # of the hidden layers


@dataclass(frozen=True)
class MethodSpec:
    """The heads, the loss ("regression" or "my_pkg.mod:fn"), the target and its rate, and whether a linear probe learns along.

    The switches of the paper's ablations are ``target`` and a predictor of 0 layers (Table 19), ``normalization`` (Table 20), ``beta`` and
    ``temperature`` (equation 8, Table 18), ``optimizer.predictor_rate`` and ``projector_rate`` (Tables 21 and 22) and a constant ``tau``
    (Table 5a).
    """

    projector: HeadSpec = field(default_factory=HeadSpec)
    predictor: HeadSpec = field(default_factory=HeadSpec)
    loss: str = "regression"
    normalization: Literal["l2", "layer", "batch", "none"] = "l2"  # of the vectors that the regression compares
    beta: float = ruled(0.0, at_least(0))  # weight of the negatives; 0 is BYOL
    temperature: float = ruled(0.1, above(0))  # of the negatives, the paper's alpha
    target: Literal["ema", "stop_gradient", "online"] = "ema"  # whose projections are predicted
    tau: float = ruled(0.996, between(0, 1))
    tau_schedule: Literal["cosine", "constant"] = "cosine"
    probe: bool = True  # without labels there is none
    supervision: float = ruled(0.0, at_least(0))  # how much of the probe's gradient the encoder learns from; 0: it learns from no label
    label_smoothing: float = ruled(0.0, between(0, 0.9))  # of the probe's loss
    adversary: AdversarySpec = field(default_factory=AdversarySpec)
    denoise: DenoiseSpec = field(default_factory=DenoiseSpec)
    teacher: TeacherSpec = field(default_factory=TeacherSpec)


@dataclass(frozen=True)
class OptimizerSpec:
    """``learning_rate`` is per 256 examples: a linear warm-up to learning_rate * batch_size / 256, then a cosine to 0."""

    name: Literal["lars", "adamw", "sgd"] = "lars"
    learning_rate: float = ruled(0.2, above(0))
    weight_decay: float = ruled(1.5e-6, at_least(0))
    warmup_epochs: int | float | None = ruled(10, at_least(0))
    warmup_steps: int | None = ruled(None, at_least(0))
    momentum: float = ruled(0.9, between(0, 1))  # lars and sgd
    trust_coefficient: float = ruled(1e-3, above(0))  # lars
    predictor_rate: float = ruled(1.0, at_least(0))  # factor on the predictor's learning rate
    projector_rate: float = ruled(1.0, at_least(0))  # factor on the projector's
    probe_rate: float = ruled(1.0, at_least(0))  # factor on the online probe's
    sparsity: float = ruled(0.0, between(0, 0.99))  # share of each of the encoder's weights, the smallest, that becomes 0 and stays it
    sparsity_steps: int = ruled(1000, at_least(1))  # until it is reached, along a cubic
    accumulate: int = ruled(1, at_least(1))  # micro-batches a step
    shard_state: bool = False  # each device keeps a share of weights, target and optimizer state; gathered for each step


@dataclass(frozen=True)
class CheckpointSpec:
    """How often the state is saved, and how many of the last ones stay."""

    every_steps: int = ruled(1000, at_least(1))
    keep: int = ruled(3, at_least(1))


@dataclass(frozen=True)
class EvaluationSpec:
    """What is measured during the run: spread and RankMe of the features, and with test data the k-NN accuracy.

    ``every_epochs`` None means ten times a run, 0 never. ``monitor_examples`` of the training data vote in k-NN.
    """

    every_epochs: int | float | None = ruled(None, at_least(0))
    monitor_examples: int = ruled(5000, at_least(1))
    knn_k: int = ruled(20, at_least(1))
    held_out_examples: int = ruled(0, at_least(0))  # of the test data, whose BYOL loss is measured as well; 0: none


@dataclass(frozen=True)
class LoggingSpec:
    """Where the metrics go. ``terminal`` and ``metrics.jsonl`` are always written."""

    every_steps: int = ruled(50, at_least(1))
    tensorboard: bool = False
    wandb: bool = False


@dataclass(frozen=True)
class Form:
    """The schema of a config file."""

    seed: int = ruled(0, between(0, 2**31 - 1))
    batch_size: int = ruled(4096, at_least(1))
    epochs: int | float | None = ruled(None, above(0))
    steps: int | None = ruled(None, at_least(1))
    data: DataSpec = field(default_factory=DataSpec)
    views: ViewsForm = field(default_factory=ViewsForm)
    text: TextForm = field(default_factory=TextForm)
    encoder: EncoderSpec = field(default_factory=EncoderSpec)
    method: MethodSpec = field(default_factory=MethodSpec)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    checkpoint: CheckpointSpec = field(default_factory=CheckpointSpec)
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    logging: LoggingSpec = field(default_factory=LoggingSpec)


@dataclass(frozen=True)
class Spec(Form):
    """A whole run, checked. Exactly one of ``epochs`` and ``steps`` is set."""

    # Two keys are of another class than in a file: what it may leave open (None: as the preset) is settled here.
    views: ViewsSpec = field(default_factory=ViewsSpec)  # type: ignore[assignment]
    text: TextSpec = field(default_factory=TextSpec)  # type: ignore[assignment]
