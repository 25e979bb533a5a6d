"""Folders as Hugging Face's transformers and sentence-transformers keep text encoders: read and written, without either of them.

What makes an encoder is in ``config.json`` and ``model.safetensors``; how it pools, in ``1_Pooling/config.json``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from byol_jax.convert import bert, state_dict
from byol_jax.convert.weights import ConvertError
from byol_jax.models import TextEncoder
from byol_jax.models.transformer import ACTIVATIONS

_LOG = logging.getLogger("byol_jax.convert")
WEIGHTS, INDEX, CONFIG, POOLING = "model.safetensors", "model.safetensors.index.json", "config.json", "1_Pooling/config.json"
ROBERTA = ("roberta", "xlm-roberta", "camembert")
# Field of TextEncoder -> key of config.json. Sizes must be there; the rest has defaults in transformers, and so here.
SIZES = {
    "vocab": "vocab_size",
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "positions": "max_position_embeddings",
}
OPTIONS: dict[str, tuple[str, Any]] = {
    "types": ("type_vocab_size", 2),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "activation": ("hidden_act", "gelu"),
    "epsilon": ("layer_norm_eps", 1e-12),
}
# Key of 1_Pooling/config.json -> ours.
POOLED = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"))
SPECIAL = {
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "unk_token": ("[UNK]", "<unk>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def read(folder: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A BERT, MiniLM, RoBERTa or XLM-RoBERTa: (fields of ``TextEncoder``, its variables {"params"}, numpy float32).

    Pooler and heads are left out, and so are further layers of sentence-transformers; the log says which. ``pooling`` is what the folder
    says, else "mean".

    Raises:
      ConvertError: a file is missing or damaged, another architecture, or tensors that do not fit, each named.
    """
    folder = Path(folder).expanduser()
    found = fields(folder)
    variables, left_out = bert.from_tensors(TextEncoder(**found), _tensors(folder), folder)
    if left_out:
        _LOG.info("%s: left out %s", folder, ", ".join(left_out))
    return found, variables


def fields(folder: str | Path) -> dict[str, Any]:
    """The fields of ``TextEncoder`` that a folder speaks of; its weights need not be there. Raises ConvertError as ``read``."""
    folder = Path(folder).expanduser()
    return _fields(_json(folder / CONFIG), folder / CONFIG) | {"pooling": _pooling(folder)}


def _json(path: Path, kind: type = dict) -> Any:
    if not path.is_file():
        raise ConvertError(f"{path}: there is no such file; a model's folder has {CONFIG} and {WEIGHTS}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # bad JSON and bad UTF-8
        raise ConvertError(f"{path}: is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise ConvertError(f"{path}: must hold a JSON {'object' if kind is dict else 'array'}")
    return content


def _fields(config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    kind = config.get("model_type")
    if kind not in ("bert", *ROBERTA):
        raise ConvertError(f"{path}: model_type = {kind!r}; this reads bert (MiniLM too), {', '.join(ROBERTA)}")
    wrong = [f"{key} is missing" for key in SIZES.values() if key not in config]
    wrong += [f"{key} = {config[key]!r} must be a number above 0" for key in SIZES.values() if not _is_size(config.get(key, 1))]
    if not wrong and config["hidden_size"] % config["num_attention_heads"]:
        wrong.append(f"hidden_size = {config['hidden_size']} is not divisible by num_attention_heads = {config['num_attention_heads']}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        wrong.append(f"position_embedding_type = {config['position_embedding_type']!r} must be 'absolute'")
    wrong += [f"{key} = true: a decoder is no encoder" for key in ("is_decoder", "add_cross_attention") if config.get(key)]
    if config.get("hidden_act", "gelu") not in ACTIVATIONS:
        wrong.append(f"hidden_act = {config['hidden_act']!r} must be one of {', '.join(ACTIVATIONS)}")
    if wrong:
        raise ConvertError(f"{path}: {'; '.join(wrong)}")
    pad = config.get("pad_token_id")
    pad = (0 if kind == "bert" else 1) if pad is None else pad
    fields = {name: config[key] for name, key in SIZES.items()} | {
        name: config.get(key, default) for name, (key, default) in OPTIONS.items()
    }
    return fields | {"pad": pad, "first_position": 0 if kind == "bert" else pad + 1}


def _is_size(value: Any) -> bool:
    return type(value) is int and value > 0


def _pooling(folder: Path) -> str:
    """Of sentence-transformers' folders; also says what of them is lost."""
    if (folder / "modules.json").is_file():
        kinds = [str(entry.get("type", "")).rsplit(".", 1)[-1] for entry in _json(folder / "modules.json", list)]
        for kind in set(kinds) - {"Transformer", "Pooling"}:
            # Normalize changes the length of an embedding alone; others make another embedding.
            _LOG.log(logging.INFO if kind == "Normalize" else logging.WARNING, "%s: left out the module %s", folder, kind)
    path = folder / POOLING
    if not path.is_file():
        return "mean"
    config = _json(path)
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    named = [POOLED.get(key, "") for key in modes] if modes else [config.get("pooling_mode", "mean")]
    if len(named) != 1 or named[0] not in POOLED.values():
        raise ConvertError(f"{path}: pools by {', '.join(modes) or named[0]}; this reads one of {', '.join(POOLED)}")
    return str(named[0])


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    if (folder / WEIGHTS).is_file():
        return state_dict.load(folder / WEIGHTS)[0]
    if (folder / INDEX).is_file():
        shards = sorted(set(_json(folder / INDEX)["weight_map"].values()))
        return {name: tensor for shard in shards for name, tensor in state_dict.load(folder / shard)[0].items()}
    if list(folder.glob("pytorch_model*.bin")):
        how = "transformers.AutoModel.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
        raise ConvertError(f"{folder}: has weights as pytorch_model.bin only, which can hold code; save them as safetensors first: {how}")
    raise ConvertError(f"{folder}: there is no {WEIGHTS} in it")


def write(
    folder: str | Path, fields: Mapping[str, Any], variables: Mapping[str, Any], tokenizer: str | Path, max_length: int
) -> list[Path]:
    """A folder that ``SentenceTransformer(folder)`` and ``AutoModel.from_pretrained(folder)`` load, with the same embeddings.

    Args:
      fields: of ``TextEncoder``; ``dtype``, ``remat`` and ``scan`` leave no trace.
      variables: its variables, with "params"; of ``scan=True`` too. Heads that were pruned come back as zeros.
      tokenizer: a ``tokenizer.json`` of Hugging Face's tokenizers, with the special tokens in it.
      max_length: tokens of a text that are read; what comes after is cut off.

    Returns:
      the files; those that were there are replaced.

    Raises:
      ConvertError: attention pooling, positions that neither family has, a tokenizer or a length that does not fit, or the package
        safetensors is missing.
    """
    folder, tokenizer = Path(folder), Path(tokenizer)
    module, variables = bert.with_all_heads(TextEncoder(**fields), variables)
    _check(module, folder, max_length)
    words = _json(tokenizer)
    special = _special(module, words, tokenizer)
    tensors = bert.to_tensors(module, variables)
    save_file = state_dict.needed("safetensors.numpy", "safetensors", folder).save_file
    texts = {
        name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in _texts(module, special, max_length).items()
    }
    texts["tokenizer.json"] = tokenizer.read_text(encoding="utf-8")
    (folder / POOLING).parent.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{WEIGHTS}.{os.getpid()}.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.replace(folder / WEIGHTS)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in (WEIGHTS, *texts)]


def _check(module: TextEncoder, folder: Path, max_length: int) -> None:
    if module.pooling not in POOLED.values():
        raise ConvertError(
            f"pooling = {module.pooling!r}: sentence-transformers has no such layer; train with mean or cls to export this way"
        )
    if module.first_position not in (0, module.pad + 1):
        raise ConvertError(f"first_position = {module.first_position}: BERT has 0, RoBERTa pad + 1 = {module.pad + 1}")
    most = module.positions - module.first_position
    if not 1 <= max_length <= most:
        raise ConvertError(f"max_length = {max_length}: must be from 1 to the {most} places that the encoder has")
    if (folder / "checkpoints").exists():
        raise ConvertError(f"{folder}: there is a run in it; take another folder")


def _special(module: TextEncoder, words: Mapping[str, Any], path: Path) -> dict[str, str]:
    """Name -> token; what pads must be the encoder's ``pad``."""
    vocab = words.get("model", {}).get("vocab", {})
    ids = dict(vocab) if isinstance(vocab, dict) else {entry[0]: i for i, entry in enumerate(vocab)}
    ids |= {token["content"]: token["id"] for token in words.get("added_tokens", [])}
    if not ids:
        raise ConvertError(f"{path}: has no vocabulary; it must be a tokenizer.json of Hugging Face's tokenizers")
    if max(ids.values()) >= module.vocab:
        raise ConvertError(
            f"{path}: has ids up to {max(ids.values())}, the encoder only {module.vocab} tokens: it was trained with another one"
        )
    pad = [token for token, i in ids.items() if i == module.pad]
    if not pad:
        raise ConvertError(f"{path}: has no token of id {module.pad}, which the encoder takes for padding")
    found = {name: next((token for token in tokens if token in ids), None) for name, tokens in SPECIAL.items()}
    return {"pad_token": pad[0]} | {name: token for name, token in found.items() if token is not None}


def _texts(module: TextEncoder, special: dict[str, str], max_length: int) -> dict[str, Any]:
    """Name of a file -> its JSON."""
    kind, name = ("roberta", "RobertaModel") if module.first_position else ("bert", "BertModel")
    config = {key: getattr(module, field) for field, key in SIZES.items()}
    config |= {key: getattr(module, field) for field, (key, _) in OPTIONS.items()}
    about = {"architectures": [name], "model_type": kind, "pad_token_id": module.pad, "position_embedding_type": "absolute"}
    chain = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{layer}"} for i, (path, layer) in enumerate(MODULES)
    ]
    modes = {key: module.pooling == pooling for key, pooling in POOLED.items()}
    modes |= {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    return {
        CONFIG: about | config,
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **special},
        "special_tokens_map.json": special,
        "modules.json": chain,
        "sentence_bert_config.json": {"max_seq_length": max_length, "do_lower_case": False},
        POOLING: {"word_embedding_dimension": module.hidden, **modes},
    }
