"""Long streams of token ids, cut into samples of one length: a window of the stream each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planish.contract.errors import InvalidData
from planish.contract.problem import FieldError
from planish.contract.spec import Spec
from planish.gate.arrays import ArrayHeader
from planish.gate.signature import Signature

USUAL_WINDOW = 512


def window_length(inputs: Sequence[Signature], spec: Spec) -> int | None:
    """Return how many tokens the model's inputs take; None where any number will do.

    Raises:
        InvalidData: ``data.window`` is another length than the model's.
    """
    fixed = [i.shape[1] for i in inputs if len(i.shape) == 2 and isinstance(i.shape[1], int)]
    wanted = spec.data.window
    if fixed and wanted not in (None, fixed[0]):
        detail = f"the model takes {fixed[0]} tokens, not {wanted}; leave window out"
        raise InvalidData(detail, (FieldError(pointer="/data/window", detail=detail),))
    return int(fixed[0]) if fixed else wanted


def cut_streams(
    inputs: Sequence[Signature],
    arrays: Mapping[str, ArrayHeader],
    targets: str,
    spec: Spec,
    part: str,
) -> dict[str, ArrayHeader]:
    """Return the arrays with each stream (T,) seen as windows (T // length, length).

    The same bytes, another shape: what is left over at the end is not used.

    Args:
        inputs: of the model.
        arrays: by the name of the input that they feed.
        targets: name of the targets among them.
        spec: says the length where the model takes any; 512 without.
        part: for errors.

    Raises:
        InvalidData: a stream shorter than one window, streams of different lengths.
    """
    takers = {item.name for item in inputs if len(item.shape) == 2}
    streams = {
        name: array
        for name, array in arrays.items()
        if len(array.shape) == 1 and name in {*takers, targets}
    }
    if not takers & set(streams):
        return dict(arrays)
    length = window_length(inputs, spec) or USUAL_WINDOW
    sizes = {array.shape[0] for array in streams.values()}
    if len(sizes) > 1 or min(sizes) < length:
        shown = ", ".join(f"{array.name!r} {array.shape[0]}" for array in streams.values())
        raise InvalidData(
            f"{part}: streams of tokens must be of one length and fill a window of {length} "
            f"tokens; these have: {shown}"
        )
    count = sizes.pop() // length
    cut = {name: replace(array, shape=(count, length)) for name, array in streams.items()}
    return {**arrays, **cut}
