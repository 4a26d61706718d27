"""Which channel counts the target's kernels like."""

from __future__ import annotations

from planish.contract.recipe import Params, Quantize
from planish.contract.spec import Target

INT8_BLOCK = 16
FLOAT_BLOCK = 8


def preferred_multiple(target: Target, later: tuple[Params, ...]) -> int:
    """Return the multiple that kept channels should be rounded to.

    ONNX Runtime's integer convolutions and matrix products work on blocks of 16 channels: a network
    thinned to 11, 22 and 45 channels ran slower in int8 than the untouched one with 16, 32 and 64.
    Its float kernels pad to 8 (AVX2) or 16 (AVX-512), and lose less on a remainder.

    Args:
        target: what the result is made for.
        later: the passes that follow in the recipe.
    """
    multiples = {"onnxruntime": (FLOAT_BLOCK, INT8_BLOCK)}
    floating, integer = multiples[target.runtime]
    return integer if any(isinstance(step, Quantize) for step in later) else floating


def nearest_multiple(value: float, multiple: int, largest: int) -> int:
    """Round to the nearest multiple (a tie keeps more), at least one multiple, at most `largest`.

    Args:
        value: wanted number of channels.
        multiple: what the result is a multiple of, unless it is `largest`.
        largest: the channels that there are; returned when not even one multiple fits.
    """
    rounded = int(value / multiple + 0.5) * multiple
    return min(max(rounded, multiple), largest)
