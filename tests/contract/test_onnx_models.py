"""What may be asked of an uploaded ONNX graph; what is refused, with the field and a way out."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from planish.contract.errors import NotForOnnx
from planish.contract.onnx_models import check_onnx, computes_in_integers
from planish.contract.spec import Spec
from planish.contract.validation import spec_from


def check(
    batch: int | None = None,
    quantized: bool = False,
    others: tuple[str, ...] = (),
    **spec: JsonValue,
) -> None:
    full = spec_from({"recipe": [{"op": "simplify"}], **spec})
    check_onnx(full, batch=batch, quantized=quantized, others=others)


@pytest.mark.parametrize(
    "step",
    [
        {"op": "simplify"},
        {"op": "cast", "dtype": "bf16"},
        {"op": "quantize"},
        {"op": "quantize", "calibration": "percentile", "percentile": 99.9},
        {"op": "quantize", "mode": "dynamic", "dtype": "uint8"},
        {"op": "quantize", "mode": "weight_only", "dtype": "int4", "group_size": 64},
    ],
)
def test_runtime_passes_are_taken(step: dict[str, JsonValue]) -> None:
    check(recipe=[step])


@pytest.mark.parametrize(
    ("step", "pointer", "words"),
    [
        ({"op": "prune", "sparsity": 0.5}, "/recipe/0", r"torch\.export\.save"),
        ({"op": "low_rank", "energy": 0.9}, "/recipe/0", r"torch\.export\.save"),
        ({"op": "distill"}, "/recipe/0", "quantize, cast, simplify alone"),
        ({"op": "retrain"}, "/recipe/0", "quantize, cast, simplify alone"),
        ({"op": "quantize", "mode": "qat"}, "/recipe/0/mode", "cannot be trained"),
        ({"op": "quantize", "mode": "dynamic", "dtype": "fp8"}, "/recipe/0/dtype", '"int8"'),
        (
            {"op": "quantize", "algorithm": "smoothquant"},
            "/recipe/0/algorithm",
            "may be auto, rtn",
        ),
        ({"op": "quantize", "algorithm": "adaround"}, "/recipe/0/algorithm", "may be auto, rtn"),
        ({"op": "quantize", "calibration": "mse"}, "/recipe/0/calibration", "minmax, moving"),
        ({"op": "quantize", "train": {"epochs": 1}}, "/recipe/0/train", "leave train out"),
        ({"op": "simplify", "activation": "relu"}, "/recipe/0/activation", "need training"),
    ],
)
def test_what_needs_torch_is_refused_at_its_field(
    step: dict[str, JsonValue], pointer: str, words: str
) -> None:
    with pytest.raises(NotForOnnx, match=words) as caught:
        check(recipe=[step])
    assert [error.pointer for error in caught.value.errors] == [pointer]
    assert caught.value.code == "not_for_onnx"


@pytest.mark.parametrize(
    ("spec", "pointer"),
    [
        ({"outputs": ["onnx", "pt2"]}, "/outputs"),
        ({"outputs": ["safetensors"]}, "/outputs"),
        ({"target": {"runtime": "torch"}, "outputs": ["onnx"]}, "/target/runtime"),
        ({"teacher": {}}, "/teacher"),
        ({"student": {}}, "/student"),
    ],
)
def test_other_outputs_runtimes_and_models_are_refused(
    spec: dict[str, JsonValue], pointer: str
) -> None:
    with pytest.raises(NotForOnnx) as caught:
        check(**spec)
    assert [error.pointer for error in caught.value.errors] == [pointer]


def test_a_fixed_batch_must_be_the_targets() -> None:
    check(batch=1)
    with pytest.raises(NotForOnnx, match=r"batches of exactly 4, and target\.batch_size is 1"):
        check(batch=4)
    with pytest.raises(NotForOnnx, match="tune tries other batch sizes"):
        check(batch=1, target={"tune": True})


def test_integers_are_not_quantized_again() -> None:
    check(quantized=True, recipe=[{"op": "simplify"}, {"op": "cast"}])
    with pytest.raises(NotForOnnx, match="quantized already"):
        check(quantized=True, recipe=[{"op": "quantize"}])
    assert computes_in_integers("QLinearConv")
    assert not computes_in_integers("Conv")


def test_a_spec_that_names_every_default_is_taken() -> None:
    """As clients send it."""
    spec = spec_from({"recipe": [{"op": "simplify"}, {"op": "quantize"}]})
    sent = Spec.model_validate_json(spec.model_dump_json())
    check_onnx(sent, batch=None, quantized=False)


def test_every_fault_is_named_at_once() -> None:
    recipe: list[JsonValue] = [{"op": "prune", "sparsity": 0.5}, {"op": "distill"}]
    with pytest.raises(NotForOnnx) as caught:
        check(recipe=recipe, outputs=["pt2"], others=("teacher",))
    assert {error.pointer for error in caught.value.errors} == {
        "/recipe/0",
        "/recipe/1",
        "/outputs",
        "/teacher",
    }
