"""Which channel counts the target's kernels like."""

from __future__ import annotations

from planish.contract.spec import Target

ONNXRUNTIME_BLOCK = 16


def preferred_multiple(target: Target) -> int:
    """Return the multiple that kept channels should be rounded to.

    ONNX Runtime computes float convolutions on x86 with AVX-512 in blocks of 16 channels: 36
    channels take as long as 48. Its int8 kernels get cheaper by fours, but pay for each block of 16
    that is begun: a residual network thinned to 11, 22 and 45 channels ran slower in int8 than the
    untouched one with 16, 32 and 64. Where blocks are 8 wide (AVX2), 16 is a multiple too.

    Args:
        target: what the result is made for.
    """
    return {"onnxruntime": ONNXRUNTIME_BLOCK}[target.runtime]


def nearest_multiple(value: float, multiple: int, largest: int) -> int:
    """Round to the nearest multiple (a tie keeps more), at least one multiple, at most `largest`.

    Args:
        value: wanted number of channels.
        multiple: what the result is a multiple of, unless it is `largest`.
        largest: the channels that there are; returned when not even one multiple fits.
    """
    rounded = int(value / multiple + 0.5) * multiple
    return min(max(rounded, multiple), largest)
