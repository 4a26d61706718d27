"""What a model file takes, from the file and from what the spec says about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from planish.contract.architectures import (
    ARCHITECTURES,
    PUBLISHED,
    ArchitectureConfig,
    find_architecture,
)
from planish.contract.errors import ArchitectureRequired, InvalidModel, UnknownFormat
from planish.contract.problem import FieldError
from planish.contract.spec import InputDeclaration, ModelSpec
from planish.gate.identify import ModelFormat, identify_model
from planish.gate.signature import BATCH, Signature


def model_format(path: Path, spec: ModelSpec, part: str = "model") -> ModelFormat:
    """Return the format of a model file, which the spec may state.

    Raises:
        UnknownFormat: the content is of no known format, or of another one than stated.
        UnsafeModel, InvalidModel, MissingPart: see `identify_model`.
    """
    found = identify_model(path)
    if spec.format not in ("auto", found):
        detail = f"the content is {found}, not {spec.format}; leave format out or set it to auto"
        raise UnknownFormat(detail, (FieldError(pointer=f"/{part}/format", detail=detail),))
    if found in ("pt2", "onnx") and spec.architecture is not None:
        detail = f"a .{found} brings its own graph; leave architecture out"
        raise InvalidModel(detail, (FieldError(pointer=f"/{part}/architecture", detail=detail),))
    return found


def check_stated_inputs(spec: ModelSpec, found: Sequence[Signature], part: str = "model") -> None:
    """Refuse a spec that states other inputs than the file has; raises `InvalidModel`."""
    if spec.inputs is not None and tuple(map(_signature, spec.inputs)) != tuple(found):
        detail = f"the file's inputs are: {'; '.join(map(str, found))}; leave inputs out or agree"
        raise InvalidModel(detail, (FieldError(pointer=f"/{part}/inputs", detail=detail),))


def architecture_inputs(
    spec: ModelSpec, part: str = "model"
) -> tuple[ArchitectureConfig, tuple[Signature, ...]]:
    """Return config and inputs of the architecture that bare weights belong to.

    Raises:
        ArchitectureRequired: the spec names none.
        UnknownArchitecture: see `find_architecture`.
        InvalidModel: `inputs` cannot feed this architecture.
    """
    if spec.architecture is None:
        names = ", ".join(entry.name for entry in ARCHITECTURES)
        detail = (
            'bare weights need the architecture that they belong to: {"library": "planish", '
            f'"name": …}}, one of {names}; or {{"library": "transformers", "name": …}}, one of '
            f"{', '.join(PUBLISHED)}, or their config.json beside them; GET /architectures lists "
            "all. For any other network send a .pt2 (torch.export.save)"
        )
        pointer = f"/{part}/architecture"
        raise ArchitectureRequired(detail, (FieldError(pointer=pointer, detail=detail),))
    config = find_architecture(spec.architecture, part)
    usual = tuple(map(_signature, config.inputs()))
    if spec.inputs is None:
        return config, usual
    if not config.accepts(spec.inputs):
        detail = (
            f"{config.architecture} takes {'; '.join(map(str, usual))}; {config.input_words()}, "
            f"the first dimension is {BATCH!r}"
        )
        raise InvalidModel(detail, (FieldError(pointer=f"/{part}/inputs", detail=detail),))
    return config, tuple(map(_signature, spec.inputs))


def _signature(item: InputDeclaration) -> Signature:
    return Signature(item.name, item.shape, item.dtype)
