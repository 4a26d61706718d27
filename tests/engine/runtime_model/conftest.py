"""The exported networks and a trained one, once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from planish.contract.validation import spec_from
from tests.engine.digits import SCALE, Digits, trained_digits
from tests.engine.runtime_model.nets import BUILT, Exported, load
from tests.onnx_exports import export_onnx
from worker.engine.load.data import Splits, load_splits
from worker.engine.runtime_model.model import RuntimeModel


@pytest.fixture(scope="session")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Exported]:
    folder = tmp_path_factory.mktemp("onnx")
    return {name: Exported(name, folder) for name in BUILT}


@dataclass(frozen=True)
class Trained:
    """A trained network with its data, as ONNX: any batch, and a batch of exactly 1."""

    digits: Digits
    path: Path
    fixed: Path
    model: RuntimeModel
    splits: Splits


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("digits_onnx")
    digits = trained_digits(folder, epochs=6)
    example = torch.zeros(2, 1, 8, 8)
    path = export_onnx(digits.module, (example,), folder / "digits.onnx")
    fixed = export_onnx(digits.module, (example[:1],), folder / "fixed.onnx", fixed=True)
    model = load(path)
    spec = spec_from({"data": {"preprocess": {"scale": SCALE}}, "recipe": [{"op": "simplify"}]})
    splits = load_splits(spec, model, digits.data, digits.test_data)
    assert splits is not None
    return Trained(digits, path, fixed, model, splits)
