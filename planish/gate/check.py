"""Everything that the front desk can refuse before a job is accepted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from planish.contract.checks import check_recipe, check_student
from planish.contract.errors import InvalidData, InvalidModel, MissingPart
from planish.contract.problem import FieldError
from planish.contract.spec import ModelSpec, Spec
from planish.gate.arrays import ArrayHeader, read_headers
from planish.gate.identify import ModelFormat, check_checkpoint
from planish.gate.inputs import architecture_inputs, check_stated_inputs, model_format
from planish.gate.match import TARGETS, check_preprocess, match_arrays, teaches
from planish.gate.pt2 import Package, check_content, open_package, program_inputs
from planish.gate.safetensors import read_tensors
from planish.gate.signature import Signature

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


def check_upload(spec: Spec, paths: Mapping[str, Path]) -> GateReport:
    """Refuse files and specs that can never become a result, from headers alone.

    Args:
        spec: the job.
        paths: the files by part: ``model``, and as needed ``data``, ``test_data``, ``teacher``,
            ``student``.

    Raises:
        PlanishError: of the branch `InvalidInput`; says which file, what is wrong, what would work.
    """
    if "model" not in paths:
        raise _missing("model", "a model file is needed")
    kind, inputs = _check_model(paths["model"], spec.model, "model")
    _check_other("teacher", spec.teacher, paths, inputs)
    check_student(spec, has_file="student" in paths)
    _check_other("student", spec.student, paths, inputs)
    has_targets = _check_data(spec, paths, inputs)
    has_data = "data" in paths
    if spec.recipe is not None:
        check_recipe(spec, has_data=has_data, has_targets=has_targets)
    return GateReport(kind, inputs, has_data, has_targets)


def _check_model(
    path: Path, spec: ModelSpec, part: str
) -> tuple[ModelFormat, tuple[Signature, ...] | None]:
    kind = model_format(path, spec, part)
    if kind == "pt2":
        return kind, _check_program(open_package(path), spec, part)
    if kind == "safetensors":
        read_tensors(path, InvalidModel)
    else:
        check_checkpoint(path)
    return kind, architecture_inputs(spec, part)[1]


def _check_program(package: Package, spec: ModelSpec, part: str) -> tuple[Signature, ...] | None:
    if package.program_size() > MAX_PROGRAM:
        return None
    program = package.program()
    inputs = program_inputs(program)
    check_content(package, program)
    check_stated_inputs(spec, inputs, part)
    return inputs


def _check_other(
    part: Literal["teacher", "student"],
    described: ModelSpec | None,
    paths: Mapping[str, Path],
    inputs: tuple[Signature, ...] | None,
) -> None:
    """Check a teacher or student; a student may be an architecture without a file."""
    if part in paths:
        _, theirs = _check_model(paths[part], described or ModelSpec(), part)
    elif described is None:
        return
    elif part == "student":
        theirs = architecture_inputs(described, part)[1]
    else:
        raise _missing(part, "the spec describes a teacher, but no teacher file came")
    if inputs is None or theirs is None:
        return
    if [(_sizes(i.shape), i.dtype) for i in theirs] != [(_sizes(i.shape), i.dtype) for i in inputs]:
        detail = (
            f"the {part} takes {_show(theirs)}, the model {_show(inputs)}; they see the same "
            "data, so their inputs must have the same shapes and types"
        )
        raise InvalidModel(detail, (FieldError(pointer=f"/{part}", detail=detail),))


def _sizes(shape: tuple[int | str, ...]) -> tuple[int | None, ...]:
    """Return a shape without the names of what varies: those are each file's own."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def _check_data(
    spec: Spec, paths: Mapping[str, Path], inputs: tuple[Signature, ...] | None
) -> bool:
    """Check the data files; tell whether the data holds what the task trains on."""
    headers = {part: read_headers(paths[part]) for part in ("data", "test_data") if part in paths}
    if "test_data" in headers and "data" not in headers:
        raise InvalidData("test_data came without data; send data too, or neither")
    if inputs is not None:
        check_preprocess(inputs, spec)
        for part, arrays in headers.items():
            match_arrays(inputs, arrays, spec, part)
    labelled = {part: _has_targets(arrays) for part, arrays in headers.items()}
    if spec.data.task != "none" and labelled.get("data") and not labelled.get("test_data", True):
        raise InvalidData(f"test_data has no array named {TARGETS!r}, which data has")
    return "data" in headers and teaches(spec.data.task, headers["data"])


def _has_targets(arrays: Sequence[ArrayHeader]) -> bool:
    return any(array.name == TARGETS for array in arrays)


def _show(inputs: Sequence[Signature]) -> str:
    return ", ".join(map(str, inputs))


def _missing(part: str, detail: str) -> MissingPart:
    return MissingPart(detail, (FieldError(pointer=f"/files/{part}", detail=detail),))
