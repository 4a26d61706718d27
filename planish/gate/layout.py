"""Do stored images lie as the model takes them (NCHW) or with the channels last (NHWC)?"""

from __future__ import annotations

from typing import Literal

from planish.contract.errors import AmbiguousLayout, InvalidData
from planish.contract.problem import FieldError
from planish.gate.signature import show_shape

Layout = Literal["nhwc", "nchw", "as_is"]
Shape = tuple[int | str, ...]


def resolve_layout(
    input_shape: Shape, array_shape: tuple[int, ...], declared: Literal["auto", "nhwc", "nchw"]
) -> Layout:
    """Return how an array lies, told from the input of the model that it feeds.

    Args:
        input_shape: the model's input with its batch dimension; text fits any size.
        array_shape: the stored array with its samples first. The channel axis may be missing
            where the model takes one channel.
        declared: ``data.preprocess.layout``.

    Raises:
        AmbiguousLayout: both layouts fit, e.g. (N, 3, 32, 3).
        InvalidData: neither fits.
    """
    if len(input_shape) != 4:
        if _fits(input_shape, array_shape):
            return "as_is"
        raise _mismatch(input_shape, array_shape)
    if len(array_shape) == 3 and input_shape[1] == 1:
        array_shape = (array_shape[0], 1, *array_shape[1:])
        declared = "nchw"
    fits = _layouts(input_shape, array_shape)
    if declared != "auto":
        fits = [layout for layout in fits if layout == declared]
    if not fits:
        raise _mismatch(input_shape, array_shape)
    if len(fits) == 2 and array_shape[1:] != (1, 1, 1):
        detail = (
            f"images of shape {show_shape(array_shape)} fit the model's {show_shape(input_shape)} "
            'both ways round; set data.preprocess.layout to "nhwc" or "nchw"'
        )
        raise AmbiguousLayout(
            detail, (FieldError(pointer="/data/preprocess/layout", detail=detail),)
        )
    return fits[-1]


def _layouts(input_shape: Shape, array_shape: tuple[int, ...]) -> list[Layout]:
    if len(array_shape) != 4:
        return []
    n, height, width, channels = array_shape
    fits: list[Layout] = []
    if _fits(input_shape, (n, channels, height, width)):
        fits.append("nhwc")
    if _fits(input_shape, array_shape):
        fits.append("nchw")
    return fits


def _fits(wanted: Shape, given: tuple[int, ...]) -> bool:
    return len(wanted) == len(given) and all(
        isinstance(want, str) or want == size for want, size in zip(wanted, given, strict=True)
    )


def _mismatch(input_shape: Shape, array_shape: tuple[int, ...]) -> InvalidData:
    return InvalidData(
        f"an array of shape {show_shape(array_shape)} cannot feed an input of shape "
        f"{show_shape(input_shape)}"
    )
