"""From the name of an operator to its function, by tables and never by walking attributes."""

from __future__ import annotations

import importlib
import math
import operator
from collections.abc import Callable

import torch
from torch._ops import OpOverload

from planish.gate.operators import SIZE_ARITHMETIC, refused, split_target

Target = OpOverload | Callable[..., object]


def resolve(target: str, place: Callable[[], str]) -> Target:
    """Return the function that a node's target names.

    Args:
        target: as the file spells it, ``torch.ops.aten.conv2d.default``.
        place: says where in the model the call stands, for the error text.

    Raises:
        OperatorNotAllowed: not in the table, or no function of this torch.
    """
    if target in SIZE_ARITHMETIC:
        return _ARITHMETIC[target]
    namespace, name, overload = split_target(target, place)
    if namespace == "quantized_decomposed":
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # registers them
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if packet is None or overload not in packet.overloads():
        raise refused(target, place)
    function: OpOverload = getattr(packet, overload)
    writes_in_place = name.endswith("_") and not name.endswith("__")
    if function._schema.is_mutable and not writes_in_place:
        raise refused(target, place)
    return function


_MODULES = {"math": math, "torch": torch, "_operator": operator}
_ARITHMETIC: dict[str, Callable[..., object]] = {
    target: getattr(_MODULES[target.partition(".")[0]], target.partition(".")[2])
    for target in SIZE_ARITHMETIC
}
