"""Which channel counts the target's kernels like."""

from __future__ import annotations

from planish.contract.spec import Target

BLOCK = 16


def preferred_multiple(target: Target) -> int:
    """Return the multiple that kept channels should be rounded to: 16 for every runtime.

    ONNX Runtime computes float convolutions on x86 with AVX-512 in blocks of 16 channels: 36
    channels take as long as 48. Its int8 kernels get cheaper by fours, but pay for each block of 16
    that is begun: a residual network thinned to 11, 22 and 45 channels ran slower in int8 than the
    untouched one with 16, 32 and 64. Where blocks are 8 wide (AVX2), 16 is a multiple too.

    OpenVINO and torch call oneDNN, whose blocks are the same. Of nine 3x3 convolutions over 28x28,
    one thread, those with 36 channels took 0.84 (OpenVINO, bfloat16) and 1.04 times (torch) as
    long as those with 48; those with 32 took 0.49 and 0.58.

    Args:
        target: what the result is made for.
    """
    return {"onnxruntime": BLOCK, "openvino": BLOCK, "torch": BLOCK}[target.runtime]


def nearest_multiple(value: float, multiple: int, largest: int) -> int:
    """Round to the nearest multiple (a tie keeps more), at least one multiple, at most `largest`.

    Args:
        value: wanted number of channels.
        multiple: what the result is a multiple of, unless it is `largest`.
        largest: the channels that there are; returned when not even one multiple fits.
    """
    rounded = int(value / multiple + 0.5) * multiple
    return min(max(rounded, multiple), largest)
