"""Model files of both sides, and the folder that the client gets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch._dynamo.exc import UserError
from torch.onnx.errors import OnnxExporterError

from planish.contract.errors import InvalidModel
from planish.contract.report import Report
from planish.contract.spec import FORMATS, Output, Spec
from planish.contract.wire import REFERENCE, REPORT_HTML, REPORT_JSON
from planish.gate.parts import Part
from worker.engine.measure.size import parts_of
from worker.engine.model import Model
from worker.engine.report.html import render
from worker.engine.report.result import MODEL_FILES
from worker.engine.save.loader import write_loader
from worker.engine.save.manifest import write_manifest
from worker.engine.save.native import require_compiler, save_aotinductor
from worker.engine.save.onnx import save_onnx
from worker.engine.save.openvino_ir import require_openvino, save_openvino
from worker.engine.save.pt2 import save_pt2
from worker.engine.save.requirements import write_requirements
from worker.engine.save.safetensors_file import save_safetensors

WRITERS: dict[Output, Callable[[Model, Path], None]] = {
    "onnx": save_onnx,
    "openvino": save_openvino,
    "pt2": save_pt2,
    "safetensors": save_safetensors,
    "aotinductor": save_aotinductor,
}
Files = Mapping[Output, Path]


def require_writers(spec: Spec) -> None:
    """Check that this worker can write, and measure, all that a job asks for.

    Raises:
        MissingDependency: it lacks openvino or a C++ compiler.
    """
    wanted = {*spec.outputs, FORMATS[spec.target.runtime]}
    if "openvino" in wanted:
        require_openvino()
    if "aotinductor" in wanted:
        require_compiler()


def export(model: Model, folder: Path, outputs: Iterable[Output], runtime: str) -> Files:
    """Write a model in each format, and in the runtime's own in any case: that one is measured.

    Raises:
        InvalidModel: the graph cannot be written in a format.
        MissingDependency: this worker cannot write a format.
    """
    folder.mkdir(parents=True)
    files: dict[Output, Path] = {}
    for output in dict.fromkeys((*outputs, FORMATS[runtime])):
        files[output] = folder / MODEL_FILES[output]
        try:
            WRITERS[output](model, files[output])
        except (OnnxExporterError, UserError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InvalidModel(f"the model cannot be written as {output}: {reason}") from error
    return files


def publish(
    out_dir: Path,
    files: Files,
    report: Report,
    spec: Spec,
    riders: Sequence[Part] = (),
    reference: Path | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Fill the folder with exactly what the client gets; the manifest comes last and names all.

    Args:
        out_dir: an empty folder, or one to be made.
        files: the optimized model in all written formats; only the ones asked for are published.
        report: goes along as JSON and as a page.
        spec: what was asked for.
        riders: companions of the upload (tokenizer, configs, licence), which stay as they came.
        reference: inputs and the outputs that belong to them, for `planish verify`.
        notes: texts that the uploaded model carried; the files have them already.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    for output in spec.outputs:
        for part in parts_of(files[output]):
            shutil.move(part, out_dir / part.name)
    if reference is not None:
        shutil.move(reference, out_dir / REFERENCE)
    (out_dir / REPORT_JSON).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (out_dir / REPORT_HTML).write_text(render(report), encoding="utf-8")
    for rider in riders:
        shutil.copyfile(rider.path, out_dir / rider.name)
    write_loader(out_dir)
    write_requirements(out_dir, spec.outputs)
    versions = report.environment["versions"]
    write_manifest(out_dir, spec, versions if isinstance(versions, dict) else {}, notes)
