from __future__ import annotations

import pytest

from planish.contract.errors import NotForOnnx
from planish.contract.onnx_models import check_onnx
from planish.contract.spec import Spec

STATIC = {"op": "quantize", "mode": "static"}


def sent(*recipe: dict[str, object]) -> Spec:
    """Return a spec as it arrives from a client that names every field."""
    spec = Spec.model_validate({"recipe": list(recipe), "outputs": ["onnx"]})
    return Spec.model_validate_json(spec.model_dump_json())


def test_a_spec_that_names_every_default_is_taken() -> None:
    check_onnx(sent({"op": "simplify"}, STATIC), batch=None, quantized=False)


def test_a_training_run_of_its_own_is_refused() -> None:
    with pytest.raises(NotForOnnx, match="leave train out"):
        check_onnx(sent({**STATIC, "train": {"epochs": 7}}), batch=None, quantized=False)
