"""The folder of a run: a local one, or one of an object store (gs://bucket/run), which etils.epath makes look the same."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

from etils import epath


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL: files there are written whole or not at all, and cannot be appended to."""
    return "://" in os.fspath(path)


def folder(path: str | os.PathLike[str]) -> Any:
    """``pathlib.Path`` of a local folder (``~`` expanded), ``etils.epath.Path`` of a remote one; nothing is made.

    gs:// needs the extra ``gcs`` (orbax asks Google's own library what kind of bucket it is) and TensorFlow; s3://, az:// and hf://
    need their fsspec package (s3fs, adlfs, huggingface_hub) and the environment variable EPATH_USE_TF=0.

    Raises:
      ValueError: the scheme is unknown, the store cannot be reached, or what reaches it is not installed.
    """
    text = os.fspath(path)
    if not is_remote(text):
        if re.match(r"(gs|s3|az|hf):/", text):
            raise ValueError(
                f"workdir = {text!r}: lost a slash, as pathlib does it to a URL; give it as text, {text.replace(':/', '://', 1)!r}"
            )
        return Path(text).expanduser()
    try:
        found = epath.Path(text)
        if text.startswith("gs://"):
            importlib.import_module("google.cloud.storage")
        found.exists()
    except KeyError:
        raise ValueError(f"workdir = {text!r}: this scheme is unknown; give a local folder or gs://, s3://, az://, hf://") from None
    except ModuleNotFoundError as error:
        raise ValueError(f"workdir = {text!r}: needs a package ({error}); for gs://: pip install 'byol-jax[gcs]'") from error
    except Exception as error:  # each store has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"workdir = {text!r}: cannot be reached ({reason}). gs:// needs Google credentials; "
            "s3://, az://, hf:// need the package s3fs, adlfs or huggingface_hub and EPATH_USE_TF=0"
        ) from error
    return found


def read_json(path: Any) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError that names a damaged one."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no JSON object ({error})") from error


def write_text(path: Any, text: str) -> None:
    """The whole text, whenever the process is killed; who reads the file meanwhile sees the old one. An equal file is left as it is."""
    if path.is_file() and path.read_bytes() == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def unused(path: Any) -> Any:
    """The path, or with a number behind it where something bears the name already."""
    others = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(place for place in itertools.chain([path], others) if not place.exists())
