"""Writes checkpoints as the official code does: dill's calls for arrays and named tuples, protocol 2."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(os.environ.get("BYOL_GOLDEN_DIR", Path(__file__).parents[1] / "golden"))
Pretraining = namedtuple("_ByolExperimentState", "online_params target_params online_state target_state opt_state")
LinearEvaluation = namedtuple("_EvalExperimentState", "backbone_params classif_params backbone_state backbone_opt_state classif_opt_state")
Decay, Lars, Empty, Trace = (
    namedtuple(*fields) for fields in [("AddWeightDecayState", ""), ("ScaleByLarsState", "mu"), ("EmptyState", ""), ("TraceState", "trace")]
)
MODULES = {Pretraining: "byol.byol_experiment", LinearEvaluation: "byol.eval_experiment", Decay: "byol.utils.optimizers"}
MODULES |= {Lars: "byol.utils.optimizers", Empty: "optax._src.base", Trace: "optax._src.transform"}


def _create_array() -> None: ...
def _create_namedtuple() -> None: ...


class Official(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return _create_array, (*value.__reduce__(), None)
        if value in MODULES if isinstance(value, type) else False:
            return _create_namedtuple, (value.__name__, value._fields, MODULES[value])
        return NotImplemented


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """``write(experiment_state, step) -> path``."""
    dill = ModuleType("dill._dill")
    for function in (_create_array, _create_namedtuple):
        monkeypatch.setattr(function, "__module__", "dill._dill")
        setattr(dill, function.__name__, function)
    monkeypatch.setitem(sys.modules, "dill", ModuleType("dill"))
    monkeypatch.setitem(sys.modules, "dill._dill", dill)

    def write(experiment: Any, step: int = 7, name: str = "pretrain.pkl") -> str:
        path = tmp_path / name
        with path.open("wb") as file:
            Official(file, 2).dump({"experiment_state": experiment, "step": step, "rng": np.array([0, 7], np.uint32)})
        return str(path)

    return write


@pytest.fixture(scope="session")
def rule() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_rule", GOLDEN / "rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fixture(rule: ModuleType) -> Callable[[str], SimpleNamespace]:
    """``fixture("ResNet18")``: its golden numbers, and its weights under the official names."""

    def fixture(name: str) -> SimpleNamespace:
        with np.load(GOLDEN / f"f_{name}.npz") as file:
            golden = dict(file)
        config = json.loads(golden["config_json"].tobytes())
        table = json.loads((GOLDEN / f"f_table_{name}_small.json").read_text())
        salt = config.get("rule_salt", "")

        def params(prefix: str = "") -> dict[str, Any]:
            return {
                m: {n: rule.param(m, n, shape, prefix=prefix, salt=salt) for n, shape in leaves.items()}
                for m, leaves in table["params"].items()
            }

        def state() -> dict[str, Any]:
            return {m: {n: rule.state(m, n, shape, salt=salt) for n, shape in leaves.items()} for m, leaves in table["state"].items()}

        return SimpleNamespace(golden=golden, config=config, params=params, state=state)

    return fixture


@pytest.fixture(scope="session")
def tiny() -> Callable[..., SimpleNamespace]:
    """``tiny(seed)``: a small network of the official code, random: params, state, a second params, momentum, classifier."""
    table = json.loads((GOLDEN / "g_table_tiny.json").read_text())

    def tiny(seed: int = 0) -> SimpleNamespace:
        random = np.random.default_rng(seed)

        def tree(kind: str) -> dict[str, Any]:
            return {
                m: {n: np.int32(1000) if n == "counter" else np.abs(random.normal(size=s)).astype(np.float32) for n, s in leaves.items()}
                for m, leaves in table[kind].items()
            }

        return SimpleNamespace(
            params=tree("params"),
            target=tree("params"),
            mu=tree("params"),
            state=tree("state"),
            target_state=tree("state"),
            classifier={"linear": {"w": np.ones((8, 10), np.float32), "b": np.arange(10, dtype=np.float32)}},
        )

    return tiny


@pytest.fixture(scope="session")
def pretraining() -> Callable[..., Any]:
    """The experiment state of a pretraining checkpoint."""

    def pretraining(t: SimpleNamespace, **changes: Any) -> Any:
        whole = Pretraining(t.params, t.target, t.state, t.target_state, (Decay(), Lars(t.mu), Empty()))
        return whole._replace(**changes)

    return pretraining


@pytest.fixture(scope="session")
def linear_evaluation() -> Callable[..., Any]:
    """The experiment state of a linear-eval checkpoint."""

    def linear_evaluation(t: SimpleNamespace, **changes: Any) -> Any:
        whole = LinearEvaluation(t.params, t.classifier, t.state, None, (Trace(t.classifier), Empty()))
        return whole._replace(**changes)

    return linear_evaluation
