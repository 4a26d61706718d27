"""Write a model as OpenVINO IR: a graph (`.xml`) and its weights (`.bin`), from the ONNX file.

The q/dq pairs of a static int8 model become OpenVINO's FakeQuantize operators and int8 constants,
so one quantized graph serves every format. docs/decisions/0010-runtimes.md has the figures.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import torch

from planish.contract.errors import InvalidModel, MissingDependency
from worker.engine.model import Model
from worker.engine.save.onnx import save_onnx

HINTS = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_NOTE = ["planish", "precision"]


def save_openvino(model: Model, path: Path) -> None:
    """Save a model as OpenVINO IR with dynamic batch.

    The graph notes the precision that the runtime is to compute in (float32 unless the model was
    cast), since OpenVINO's own default is bfloat16 where the processor has it.

    Args:
        model: float or static int8.
        path: the `.xml` to write; the weights lie beside it as `.bin`. Its folder exists.

    Raises:
        MissingDependency: openvino is not installed.
        InvalidModel: OpenVINO cannot read the graph.
    """
    source = path.with_suffix(".onnx.tmp")
    save_onnx(model, source)
    try:
        convert(source, path, HINTS[model.precision])
    finally:
        source.unlink()


def require_openvino() -> None:
    """Check that openvino is installed.

    Raises:
        MissingDependency: it is not.
    """
    if find_spec("openvino") is None:
        raise MissingDependency(
            "output and runtime openvino need a library that this worker lacks: "
            "pip install 'planish[openvino]'"
        )


def convert(source: Path, path: Path, precision: str = "f32") -> None:
    """Write an ONNX file as IR; nothing of this machine or of the conversion stays in it.

    Args:
        source: the ONNX file.
        path: the `.xml` to write.
        precision: hint for the runtime: ``f32``, ``bf16`` or ``f16``.

    Raises:
        MissingDependency, InvalidModel: see `save_openvino`.
    """
    require_openvino()
    import openvino
    from openvino._offline_transformations import apply_moc_transformations

    try:
        graph = openvino.Core().read_model(str(source))
    except RuntimeError as error:
        reason = str(error).strip().rpartition("\n")[2]
        raise InvalidModel(f"the model cannot be written as openvino: {reason}") from error
    # What `openvino.convert_model` does after reading; it would also call home.
    apply_moc_transformations(graph, cf=False, smart_reshape=False)
    graph.set_friendly_name("model")
    graph.set_rt_info(precision, _NOTE)
    openvino.save_model(graph, str(path), compress_to_fp16=False)
    _compact(path, precision)


def _compact(path: Path, precision: str) -> None:
    """Drop indentation and everything that was noted beside the network, but for the precision."""
    tree = ElementTree.parse(path)  # noqa: S314  # written a line above by openvino itself
    root = tree.getroot()
    for element in root.iter():
        for note in element.findall("rt_info"):
            element.remove(note)
        element.text = element.text.strip() if element.text else None
        element.tail = None
    info = ElementTree.SubElement(root, "rt_info")
    ElementTree.SubElement(ElementTree.SubElement(info, _NOTE[0]), _NOTE[1], value=precision)
    tree.write(path, encoding="utf-8", xml_declaration=True)
