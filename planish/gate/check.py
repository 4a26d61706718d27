"""Everything that the front desk can refuse before a job is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from planish.contract.architectures import Answer
from planish.contract.checks import check_recipe, check_student
from planish.contract.errors import InvalidModel, MissingPart, NotForOnnx
from planish.contract.onnx_models import EXPORT, check_onnx, computes_in_integers
from planish.contract.problem import FieldError
from planish.contract.spec import ModelSpec, Spec
from planish.gate.answers import differ, program_answer
from planish.gate.data import check_data
from planish.gate.identify import ModelFormat, check_checkpoint
from planish.gate.inputs import architecture_inputs, check_stated_inputs, model_format
from planish.gate.onnx import read_onnx
from planish.gate.onnx.batch import check_parts, graph_batch, graph_inputs
from planish.gate.parts import ModelFiles, Source, model_files, only_file
from planish.gate.pt2 import Package, check_content, open_package, program_inputs
from planish.gate.published import with_architecture
from planish.gate.safetensors import read_tensors
from planish.gate.signature import Signature, show_shape

# A program this large has some ten thousand calls; the worker looks at larger ones.
MAX_PROGRAM = 16 << 20


@dataclass(frozen=True)
class GateReport:
    """What the files said about themselves.

    Attributes:
        model_format: by content.
        inputs: of the model; None where only the worker can tell.
        has_data: whether a data file came.
        has_targets: whether it holds what the task trains on.
    """

    model_format: ModelFormat
    inputs: tuple[Signature, ...] | None
    has_data: bool
    has_targets: bool


def check_upload(spec: Spec, paths: Mapping[str, Source]) -> GateReport:
    """Refuse files and specs that can never become a result, from headers alone.

    Args:
        spec: the job.
        paths: the files by part: ``model``, and as needed ``data``, ``test_data``, ``teacher``,
            ``student``; `Parts` where one is several files.

    Raises:
        PlanishError: of the branch `InvalidInput`; says which file, what is wrong, what would work.
    """
    if "model" not in paths:
        raise _missing("model", "a model file is needed")
    model = _check_model(paths["model"], spec.model, "model")
    if model.format == "onnx":
        check_onnx(spec, batch=model.batch, quantized=model.quantized, others=tuple(paths))
    _check_other("teacher", spec.teacher, paths, model)
    check_student(spec, has_file="student" in paths)
    _check_other("student", spec.student, paths, model)
    given = {p: only_file(paths[p], p) for p in ("data", "test_data") if p in paths}
    has_targets = check_data(spec, given, model.inputs)
    has_data = "data" in paths
    if spec.recipe is not None:
        check_recipe(spec, has_data=has_data, has_targets=has_targets)
    return GateReport(model.format, model.inputs, has_data, has_targets)


@dataclass(frozen=True)
class _Found:
    """What one model file says about itself; None where only the worker can tell."""

    format: ModelFormat
    inputs: tuple[Signature, ...] | None
    answer: Answer | None
    batch: int | None = None
    quantized: bool = False


def _check_model(source: Source, spec: ModelSpec, part: str) -> _Found:
    files = model_files(source, part)
    path = files.main
    kind = model_format(path, spec, part)
    if kind == "pt2":
        return _check_program(open_package(path), spec, part)
    if kind == "onnx":
        return _check_graph(files, spec, part)
    if kind == "safetensors":
        read_tensors(path, InvalidModel)
    else:
        check_checkpoint(path)
    return _named(kind, with_architecture(spec, files), part)


def _named(kind: ModelFormat, spec: ModelSpec, part: str) -> _Found:
    """Return what a network of a named architecture takes and answers."""
    config, inputs = architecture_inputs(spec, part)
    return _Found(kind, inputs, config.answer())


def _check_program(package: Package, spec: ModelSpec, part: str) -> _Found:
    if package.program_size() > MAX_PROGRAM:
        return _Found("pt2", None, None)
    program = package.program()
    inputs = program_inputs(program)
    check_content(package, program)
    check_stated_inputs(spec, inputs, part)
    return _Found("pt2", inputs, program_answer(program))


def _check_graph(files: ModelFiles, spec: ModelSpec, part: str) -> _Found:
    """Check an ONNX file, and that the upload holds all its weights."""
    if part != "model":
        detail = f"the {part} is an ONNX graph, which cannot be trained or learnt from; {EXPORT}"
        raise NotForOnnx(detail, (FieldError(pointer=f"/files/{part}", detail=detail),))
    header = read_onnx(files.main)
    check_parts(header, {beside.name: beside.path for beside in files.beside})
    inputs = graph_inputs(header)
    check_stated_inputs(spec, inputs, part)
    quantized = any(map(computes_in_integers, header.graph.operators))
    return _Found("onnx", inputs, None, graph_batch(header), quantized)


def _check_other(
    part: Literal["teacher", "student"],
    described: ModelSpec | None,
    paths: Mapping[str, Source],
    model: _Found,
) -> None:
    """Check a teacher or student; a student may be an architecture without a file."""
    if part in paths:
        other = _check_model(paths[part], described or ModelSpec(), part)
    elif described is None:
        return
    elif part == "student":
        other = _named("state_dict", described, part)
    else:
        raise _missing(part, "the spec describes a teacher, but no teacher file came")
    if other.inputs is not None and model.inputs is not None:
        theirs, ours = (
            [(_sizes(i.shape), i.dtype) for i in m.inputs or ()] for m in (other, model)
        )
        if theirs != ours:
            raise _disagrees(
                part,
                f"the {part} takes {_show(other.inputs)}, the model {_show(model.inputs)}; they "
                "see the same data, so their inputs must have the same shapes and types",
            )
    if differ(other.answer, model.answer):
        raise _disagrees(
            part,
            f"the {part}'s outputs are {_words(other.answer)} per sample, the model's "
            f"{_words(model.answer)}; both must answer the same question",
        )


def _disagrees(part: str, detail: str) -> InvalidModel:
    return InvalidModel(detail, (FieldError(pointer=f"/{part}", detail=detail),))


def _words(answer: Answer | None) -> str:
    """Return a shape for people; a size that varies is a dot."""
    return show_shape(tuple("·" if size is None else size for size in answer or ()))


def _sizes(shape: tuple[int | str, ...]) -> tuple[int | None, ...]:
    """Return a shape without the names of what varies: those are each file's own."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _show(inputs: Sequence[Signature]) -> str:
    return ", ".join(map(str, inputs))


def _missing(part: str, detail: str) -> MissingPart:
    return MissingPart(detail, (FieldError(pointer=f"/files/{part}", detail=detail),))
