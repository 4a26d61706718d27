"""What a recipe may ask of an uploaded ONNX graph. Asked at submit, by plans and by the engine.

An ONNX graph runs; it cannot be trained, and its layers are no `torch.nn` layers. So it goes
through the passes of runtimes alone: quantize, cast, simplify.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from planish.contract.errors import NotForOnnx
from planish.contract.passes.base import Params
from planish.contract.problem import FieldError
from planish.contract.recipe import Cast, Quantize, Simplify, op_of
from planish.contract.spec import Output, Spec

PASSES: tuple[type[Params], ...] = (Quantize, Cast, Simplify)
OUTPUTS: tuple[Output, ...] = ("onnx", "openvino")
ALGORITHMS = {"static": ("auto", "rtn"), "dynamic": ("auto", "rtn"), "weight_only": ("auto", "rtn")}
CALIBRATIONS = ("minmax", "moving_average", "entropy", "percentile")
EXPORT = (
    "send the network as a .pt2: torch.export.save(torch.export.export(model, (example,), "
    'dynamic_shapes=({0: torch.export.Dim("batch")},)), "model.pt2")'
)


_INTEGERS = (
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulBnb4",
    "MatMulInteger",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QEmbedLayerNormalization",
    "QGemm",
    "QuantizeLinear",
)


def computes_in_integers(operator: str) -> bool:
    """Tell whether an operator stands for integers in the place of floats."""
    return operator in _INTEGERS or operator.startswith("QLinear")


def check_onnx(
    spec: Spec, *, batch: int | None, quantized: bool, others: Sequence[str] = ()
) -> None:
    """Refuse what no runtime pass can do with an ONNX graph.

    Args:
        spec: a job whose model is an ONNX file.
        batch: the only batch that the graph takes; None where any goes.
        quantized: whether it holds integers in the place of floats already.
        others: further models that came, ``teacher`` and ``student``.

    Raises:
        NotForOnnx: `errors` names each field, what is possible there, and what to do.
    """
    errors = [*_spec(spec, batch), *_others(spec, others)]
    for index, params in enumerate(spec.recipe or ()):
        errors += _pass(params, index, quantized=quantized)
    if errors:
        raise NotForOnnx("; ".join(error.detail for error in errors), tuple(errors))


def _spec(spec: Spec, batch: int | None) -> Iterator[FieldError]:
    target = spec.target
    if target.runtime == "torch":
        yield FieldError(
            pointer="/target/runtime",
            detail='torch does not run ONNX graphs; set target.runtime to "onnxruntime" or '
            f'"openvino", or {EXPORT}',
        )
    for output in spec.outputs:
        if output not in OUTPUTS:
            yield FieldError(
                pointer="/outputs",
                detail=f"{output} cannot be made of an ONNX graph; outputs may be "
                f"{', '.join(OUTPUTS)}, or {EXPORT}",
            )
    if batch is not None:
        yield from _fixed_batch(spec, batch)


def _fixed_batch(spec: Spec, batch: int) -> Iterator[FieldError]:
    if spec.target.batch_size != batch:
        yield FieldError(
            pointer="/target/batch_size",
            detail=f"the graph takes batches of exactly {batch}, and target.batch_size is "
            f"{spec.target.batch_size}; set it to {batch}, or export with a dynamic batch",
        )
    if spec.target.tune:
        yield FieldError(
            pointer="/target/tune",
            detail=f"tune tries other batch sizes, and the graph takes batches of exactly {batch}; "
            "leave it out, or export with a dynamic batch",
        )


def _others(spec: Spec, others: Sequence[str]) -> Iterator[FieldError]:
    described = {"teacher": spec.teacher, "student": spec.student}
    for part in ("teacher", "student"):
        if part in others or described[part] is not None:
            yield FieldError(
                pointer=f"/{part}",
                detail=f"an ONNX graph cannot be trained, so a {part} means nothing; leave it out, "
                f"or {EXPORT}",
            )


def _pass(params: Params, index: int, *, quantized: bool) -> Iterator[FieldError]:
    pointer = f"/recipe/{index}"
    if not isinstance(params, PASSES):
        names = ", ".join(op_of(kind) for kind in PASSES)
        op = op_of(type(params))
        yield FieldError(
            pointer=pointer,
            detail=f"{op} needs a network that torch can open, and an ONNX graph goes through "
            f"{names} alone; {EXPORT}",
        )
    if isinstance(params, Quantize) and quantized:
        yield FieldError(
            pointer=pointer,
            detail="the graph is quantized already, and integers are not quantized again; leave "
            "quantize out (cast and simplify work), or send the float graph",
        )
    elif isinstance(params, Quantize):
        yield from _quantize(params, pointer)
    if isinstance(params, Simplify) and params.activation is not None:
        yield FieldError(
            pointer=f"{pointer}/activation",
            detail="swapped activations need training, which an ONNX graph cannot get; leave "
            f"activation out, or {EXPORT}",
        )


def _quantize(params: Quantize, pointer: str) -> Iterator[FieldError]:
    if params.mode == "qat":
        yield FieldError(
            pointer=f"{pointer}/mode",
            detail="mode qat trains, and an ONNX graph cannot be trained; set mode to "
            f'"static", "dynamic" or "weight_only", or {EXPORT}',
        )
        return
    if params.dtype == "fp8":
        yield FieldError(
            pointer=f"{pointer}/dtype",
            detail='fp8 exists for torch alone; set dtype to "int8"',
        )
    if params.algorithm not in ALGORITHMS[params.mode]:
        yield FieldError(
            pointer=f"{pointer}/algorithm",
            detail=f"{params.algorithm} works on torch layers; for an ONNX graph in mode "
            f"{params.mode} algorithm may be {', '.join(ALGORITHMS[params.mode])}; or {EXPORT}",
        )
    if params.calibration not in CALIBRATIONS:
        yield FieldError(
            pointer=f"{pointer}/calibration",
            detail=f"ONNX Runtime's calibrators know no {params.calibration}; calibration may be "
            f"{', '.join(CALIBRATIONS)}",
        )
    if params.train != Quantize().train:  # a spec that went over the wire names every field
        yield FieldError(
            pointer=f"{pointer}/train",
            detail="an ONNX graph cannot be trained; leave train out",
        )
