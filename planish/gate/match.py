"""Which array feeds which input, and whether the headers agree with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from planish.contract.errors import AmbiguousLayout, InputNotFound, InvalidData
from planish.contract.problem import FieldError
from planish.contract.spec import Spec, Task
from planish.gate.arrays import ArrayHeader
from planish.gate.layout import Layout, resolve_layout
from planish.gate.signature import Signature, show_shape
from planish.gate.windows import cut_streams

TARGETS = "targets"
INPUTS = "inputs"
TOKENS = "input_ids"
MASK = "attention_mask"
NO_NAMES: Mapping[str, str] = MappingProxyType({})
_INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


@dataclass(frozen=True)
class Feed:
    """One model input with the array that feeds it."""

    input: Signature
    array: ArrayHeader
    layout: Layout


@dataclass(frozen=True)
class Match:
    """Arrays of one data file by their use.

    Attributes:
        feeds: one for each input.
        targets: None where the file or the task has none.
        samples: in the file.
        tokens: the feed whose token ids are the targets of language modeling without `targets`.
        mask: the feed that tells which of them count.
        paired: whether the targets are scores of pairs of samples (task embedding).
    """

    feeds: tuple[Feed, ...]
    targets: ArrayHeader | None
    samples: int
    tokens: Feed | None = None
    mask: Feed | None = None
    paired: bool = False


def match_arrays(
    inputs: Sequence[Signature],
    arrays: Sequence[ArrayHeader],
    spec: Spec,
    part: str,
    names: Mapping[str, str] = NO_NAMES,
) -> Match:
    """Find an array for each input and the targets.

    Args:
        inputs: what the model takes.
        arrays: what the file has.
        spec: says the task and the layout.
        part: name of the file for error texts, ``data`` or ``test_data``.
        names: of arrays that are called otherwise than the input, or the targets, that they are.

    Raises:
        InputNotFound: an input has no array.
        AmbiguousLayout, InvalidData: shapes, types or lengths do not fit.
    """
    by_name = _by_use(inputs, arrays, names)
    check_preprocess(inputs, spec)
    if spec.data.task == "language_modeling":
        by_name = cut_streams(inputs, by_name, TARGETS, spec, part)
    feeds = tuple(_feed(item, by_name, len(inputs) == 1, spec, part) for item in inputs)
    samples = feeds[0].array.shape[0]
    targets = by_name.get(TARGETS) if spec.data.task != "none" else None
    for array in [feed.array for feed in feeds] + ([targets] if targets else []):
        if not array.shape or array.shape[0] != samples:
            raise InvalidData(
                f"{part}: {array.name!r} has shape {show_shape(array.shape)}, but "
                f"{feeds[0].array.name!r} has {samples} samples; the first dimension must agree"
            )
    if not samples:
        raise InvalidData(f"{part}: {feeds[0].array.name!r} has no samples")
    tokens = _tokens(feeds, part) if spec.data.task == "language_modeling" else None
    mask = next((feed for feed in feeds if feed.input.name == MASK), None) if tokens else None
    if targets:
        _CHECKS[spec.data.task](targets, tokens, part)
    paired = targets is not None and spec.data.task == "embedding" and _is_flat(targets)
    return Match(feeds, targets, samples, tokens, mask, paired)


def _by_use(
    inputs: Sequence[Signature], arrays: Sequence[ArrayHeader], names: Mapping[str, str]
) -> dict[str, ArrayHeader]:
    """Return the arrays by the name of the input or targets that they are, where they are any."""
    found = {array.name: array for array in arrays}
    used = {use: found[name] for use, name in names.items()}
    if len(inputs) == 1 and inputs[0].name not in found and INPUTS in found:
        used.setdefault(inputs[0].name, found[INPUTS])
    return {**found, **used}


def teaches(task: Task, arrays: Sequence[ArrayHeader]) -> bool:
    """Tell whether a file holds what the task trains on, from the arrays' names and shapes.

    Token ids are their own targets. Scores tell how near a pair of embeddings is, but not where.
    """
    targets = next((array for array in arrays if array.name == TARGETS), None)
    if task == "language_modeling":
        return True
    if task == "embedding":
        return targets is not None and not _is_flat(targets)
    return task != "none" and targets is not None


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
    array = by_name.get(item.name)
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


def _tokens(feeds: Sequence[Feed], part: str) -> Feed:
    """Return the feed of token ids: `input_ids`, else the only integer input that is no mask."""
    found = [f for f in feeds if not _is_float(f.input) and len(f.array.shape) == 2]
    named = [f for f in found if f.input.name == TOKENS]
    rest = [f for f in found if f.input.dtype != "bool" and not f.input.name.endswith("mask")]
    chosen = named or rest
    if not chosen or (not named and len(rest) > 1):
        shown = ", ".join(str(f.input) for f in feeds)
        raise InvalidData(
            f"{part}: language_modeling needs one input of token ids, (batch, tokens) integers, "
            f"called {TOKENS!r} where there are several; the model takes {shown}"
        )
    return chosen[0]


def _check_classes(targets: ArrayHeader, tokens: Feed | None, part: str) -> None:
    if targets.dtype not in _INTEGERS:
        raise InvalidData(
            f"{part}: {TARGETS!r} has type {targets.dtype}; class indices are integers from 0"
        )
    if not _is_flat(targets):
        raise InvalidData(
            f"{part}: {TARGETS!r} has shape {show_shape(targets.shape)}; one class index for "
            "each sample is taken, (N,) or (N, 1)"
        )


def _check_numbers(targets: ArrayHeader, tokens: Feed | None, part: str) -> None:
    if targets.descr is None or targets.dtype == "bool":
        raise InvalidData(
            f"{part}: {TARGETS!r} has type {targets.dtype}; regression takes numbers of 8 to 64 "
            "bits in the shape of the model's output"
        )


def _check_token_targets(targets: ArrayHeader, tokens: Feed | None, part: str) -> None:
    wanted = tokens.array.shape if tokens else ()
    if targets.dtype not in _INTEGERS or targets.shape != wanted:
        raise InvalidData(
            f"{part}: {TARGETS!r} is {targets.dtype} {show_shape(targets.shape)}; "
            f"language_modeling takes integers in the shape of the token ids, "
            f"{show_shape(wanted)}, aligned with them (the loss shifts by one), -100 where no "
            "token is wanted; or no targets at all"
        )


def _check_embeddings(targets: ArrayHeader, tokens: Feed | None, part: str) -> None:
    if not targets.dtype.startswith("float") or len(targets.shape) > 2:
        raise InvalidData(
            f"{part}: {TARGETS!r} is {targets.dtype} {show_shape(targets.shape)}; embedding takes "
            "floats: embeddings (N, D), or scores (N,) of pairs in the rows 2i and 2i + 1"
        )
    if _is_flat(targets) and targets.shape[0] % 2:
        raise InvalidData(
            f"{part}: {TARGETS!r} holds scores of pairs, the rows 2i and 2i + 1, but "
            f"{targets.shape[0]} samples are an odd number"
        )


def _is_flat(targets: ArrayHeader) -> bool:
    return len(targets.shape) == 1 or (len(targets.shape) == 2 and targets.shape[1] == 1)


_CHECKS: Mapping[Task, Callable[[ArrayHeader, Feed | None, str], None]] = {
    "classification": _check_classes,
    "regression": _check_numbers,
    "language_modeling": _check_token_targets,
    "embedding": _check_embeddings,
}
