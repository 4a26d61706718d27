"""Which array feeds which input, and whether the headers agree with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.contract.errors import AmbiguousLayout, InputNotFound, InvalidData
from planish.contract.problem import FieldError
from planish.contract.spec import Spec
from planish.gate.arrays import ArrayHeader
from planish.gate.layout import Layout, resolve_layout
from planish.gate.signature import Signature, show_shape

TARGETS = "targets"
INPUTS = "inputs"
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@dataclass(frozen=True)
class Feed:
    """One model input with the array that feeds it."""

    input: Signature
    array: ArrayHeader
    layout: Layout


@dataclass(frozen=True)
class Match:
    """Arrays of one data file by their use; `targets` is None where the task has none."""

    feeds: tuple[Feed, ...]
    targets: ArrayHeader | None
    samples: int


def match_arrays(
    inputs: Sequence[Signature], arrays: Sequence[ArrayHeader], spec: Spec, part: str
) -> Match:
    """Find an array for each input and the targets.

    Args:
        inputs: what the model takes.
        arrays: what the file has.
        spec: says the task and the layout.
        part: name of the file for error texts, ``data`` or ``test_data``.

    Raises:
        InputNotFound: an input has no array.
        AmbiguousLayout, InvalidData: shapes, types or lengths do not fit.
    """
    by_name = {array.name: array for array in arrays}
    check_preprocess(inputs, spec)
    feeds = tuple(_feed(item, by_name, len(inputs) == 1, spec, part) for item in inputs)
    samples = feeds[0].array.shape[0]
    targets = by_name.get(TARGETS) if spec.data.task == "classification" else None
    for array in [feed.array for feed in feeds] + ([targets] if targets else []):
        if not array.shape or array.shape[0] != samples:
            raise InvalidData(
                f"{part}: {array.name!r} has shape {show_shape(array.shape)}, but "
                f"{feeds[0].array.name!r} has {samples} samples; the first dimension must agree"
            )
    if targets:
        _check_targets(targets, part)
    if not samples:
        raise InvalidData(f"{part}: {feeds[0].array.name!r} has no samples")
    return Match(feeds, targets, samples)


def is_preprocessed(item: Signature, inputs: Sequence[Signature]) -> bool:
    """Tell whether ``data.preprocess`` is for this input: images, or all floats without images."""
    images = any(_is_float(other) and len(other.shape) == 4 for other in inputs)
    return _is_float(item) and (len(item.shape) == 4 or not images)


def check_preprocess(inputs: Sequence[Signature], spec: Spec) -> None:
    """Refuse means or deviations that are as many as neither 1 nor the channels.

    Raises:
        InvalidData: `errors` points at the field.
    """
    for item in (item for item in inputs if is_preprocessed(item, inputs)):
        channels = item.shape[1] if len(item.shape) > 1 else 1
        for field in ("mean", "std"):
            count = len(getattr(spec.data.preprocess, field))
            if count not in (1, channels):
                detail = (
                    f"{field} has {count} values; input {item.name!r} {show_shape(item.shape)} "
                    f"takes 1 or {channels}"
                )
                pointer = f"/data/preprocess/{field}"
                raise InvalidData(detail, (FieldError(pointer=pointer, detail=detail),))


def _is_float(item: Signature) -> bool:
    return item.dtype.startswith(("float", "bfloat"))


def _feed(
    item: Signature, by_name: dict[str, ArrayHeader], single: bool, spec: Spec, part: str
) -> Feed:
    array = by_name.get(item.name) or (by_name.get(INPUTS) if single else None)
    if array is None:
        wanted = f"{item.name!r} or {INPUTS!r}" if single else repr(item.name)
        raise InputNotFound(
            f"{part} has no array named {wanted} for the model's input {item}; "
            f"it has: {', '.join(sorted(by_name))[:500]}"
        )
    if array.descr is None:
        raise InvalidData(
            f"{part}: {array.name!r} has type {array.dtype}; numbers of 8 to 64 bits are taken"
        )
    if not _is_float(item) and array.dtype not in (*_INTEGERS, "bool"):
        raise InvalidData(
            f"{part}: {array.name!r} has type {array.dtype}; the model's input {item.name!r} "
            f"takes {item.dtype}"
        )
    try:
        layout = resolve_layout(item.shape, array.shape, spec.data.preprocess.layout)
    except (InvalidData, AmbiguousLayout) as error:
        raise type(error)(f"{part}: {array.name!r}: {error.detail}", error.errors) from None
    return Feed(item, array, layout)


def _check_targets(targets: ArrayHeader, part: str) -> None:
    flat = len(targets.shape) == 1 or (len(targets.shape) == 2 and targets.shape[1] == 1)
    if targets.dtype not in _INTEGERS:
        raise InvalidData(
            f"{part}: {TARGETS!r} has type {targets.dtype}; class indices are integers from 0"
        )
    if not flat:
        raise InvalidData(
            f"{part}: {TARGETS!r} has shape {show_shape(targets.shape)}; one class index for "
            "each sample is taken, (N,) or (N, 1)"
        )
