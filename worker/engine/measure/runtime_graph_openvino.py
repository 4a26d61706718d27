"""What OpenVINO really does with an int8 file: its compiled graph, read back."""

from __future__ import annotations

from pathlib import Path

from worker.engine.save.standalone import openvino_core

_PRODUCTS = {"Convolution", "FullyConnected", "MatMul", "Deconvolution", "GroupConvolution"}
_INTEGERS = {"u8", "i8"}


def openvino_float_layers(path: Path) -> tuple[str, ...]:
    """Return the names of convolutions and matrix products that run in floats.

    Args:
        path: the `.xml` of an IR; its nodes have the names that the ONNX writer gave: the layers'.
    """
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(str(path), "CPU", settings)
    found = []
    for node in compiled.get_runtime_model().get_ops():
        notes = node.get_rt_info()
        kind, precision, names = (
            notes[key].astype(str)
            for key in ("layerType", "runtimePrecision", "originalLayersNames")
        )
        if kind in _PRODUCTS and precision not in _INTEGERS:
            found.append(names.partition(",")[0].partition("/")[0])
    return tuple(found)
