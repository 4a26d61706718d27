"""Model files of an ONNX graph: as it is, and as OpenVINO IR."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import onnx

from planish.contract.spec import FORMATS, Output
from worker.engine.publish import Files
from worker.engine.report.result import MODEL_FILES
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.save.openvino_ir import HINTS, convert


def save_runtime_onnx(model: RuntimeModel, path: Path) -> None:
    """Write the graph as one ONNX file; its folder exists."""
    onnx.checker.check_model(model.proto)
    path.write_bytes(model.proto.SerializeToString())


def save_runtime_openvino(model: RuntimeModel, path: Path) -> None:
    """Write the graph as IR: `path` is the `.xml`, the weights lie beside it as `.bin`.

    Raises:
        MissingDependency: openvino is not installed.
        InvalidModel: OpenVINO cannot read the graph.
    """
    source = path.with_suffix(".onnx.tmp")
    save_runtime_onnx(model, source)
    try:
        convert(source, path, HINTS[model.precision])
    finally:
        source.unlink()


WRITERS: Mapping[Output, Callable[[RuntimeModel, Path], None]] = {
    "onnx": save_runtime_onnx,
    "openvino": save_runtime_openvino,
}


def export_runtime(
    model: RuntimeModel, folder: Path, outputs: Iterable[Output], runtime: str
) -> Files:
    """Write a graph in each format, and in the runtime's own in any case: that one is measured."""
    folder.mkdir(parents=True)
    files: dict[Output, Path] = {}
    for output in dict.fromkeys((*outputs, FORMATS[runtime])):
        files[output] = folder / MODEL_FILES[output]
        WRITERS[output](model, files[output])
    return files
