"""Write a model as ONNX: one file, dynamic batch, nothing in it but the network."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from worker.engine.model import Model, Quantization
from worker.engine.quantize.packed import with_runtime_operators
from worker.engine.save.bfloat16 import store_in_bfloat16, widened
from worker.engine.save.compact import compact, input_symbols, rename_dimensions
from worker.engine.save.float_layers import keep_in_float
from worker.engine.save.program import export_program, quiet

# Opset 23 joins attention into one operator, whose products no quantizer sees.
OPSET = 20
_WEIGHT_TYPES = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
_CHATTY = ("torch.onnx", "onnxscript", "onnx_ir", "onnxruntime.quantization")


def save_onnx(model: Model, path: Path) -> None:
    """Save a model as one ONNX file with dynamic batch.

    Inputs have the model's names, outputs are ``output``, ``output_1``, …; weighted nodes have the
    names of their layers. A dynamic int8 model gets its integers here, from ONNX Runtime's
    `quantize_dynamic`: int8 weights, matrix products only (convolutions would become slower).

    Args:
        model: float, static int8 (q/dq pairs in its graph), dynamic int8 or of packed weights.
        path: the file to write; its folder exists. At most 2 GB, the limit of one ONNX file.
    """
    half = model.precision is torch.bfloat16
    proto = _export(widened(model) if half else model)
    if half:
        store_in_bfloat16(proto)
    quantization = model.quantization
    if quantization is not None and quantization.params.mode == "dynamic":
        proto = _dynamic_int8(proto, quantization)
    elif quantization is not None and quantization.params.mode in ("static", "qat"):
        keep_in_float(proto)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())


def _export(model: Model) -> ModelProto:
    program = export_program(with_runtime_operators(model))
    count = len(program.graph_signature.user_outputs)
    with exporter_silenced():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in model.inputs],
            output_names=[f"output_{index}" if index else "output" for index in range(count)],
            external_data=False,
            verbose=False,
        )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = exported.model_proto
    rename_dimensions(proto, _dimension_names(model, proto))
    compact(proto)
    return proto


def _dimension_names(model: Model, proto: ModelProto) -> dict[str, str]:
    return {
        symbol: size
        for spec, symbols in zip(model.inputs, input_symbols(proto).values(), strict=True)
        for size, symbol in zip(spec.shape, symbols, strict=True)
        if isinstance(size, str) and symbol
    }


def _dynamic_int8(proto: ModelProto, quantization: Quantization) -> ModelProto:
    with tempfile.TemporaryDirectory(prefix="planish-") as folder, exporter_silenced():
        out = Path(folder, "int8.onnx")
        quantize_dynamic(
            proto,
            out,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=quantization.params.granularity == "channel",
            weight_type=_WEIGHT_TYPES[quantization.params.dtype],
            nodes_to_exclude=list(quantization.kept_float),
        )
        quantized = onnx.load(out)
    compact(quantized)
    return quantized


@contextmanager
def exporter_silenced() -> Iterator[None]:
    """Keep the exporters' notes about themselves out of the job's log."""
    loggers = [logging.getLogger(name) for name in (*_CHATTY, None)]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with quiet(), redirect_stdout(sink), redirect_stderr(sink):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
