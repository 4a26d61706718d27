"""One line in `REGISTRY` for each pass that an ONNX graph can go through."""

from __future__ import annotations

from typing import Any

from planish.contract.recipe import Cast, Quantize, Simplify, op_of
from worker.engine.runtime_model import cast, quantize, simplify
from worker.engine.runtime_model.protocol import RuntimeEntry

_ENTRIES: tuple[RuntimeEntry[Any], ...] = (
    RuntimeEntry(Quantize, quantize.run, quantize.plan),
    RuntimeEntry(Cast, cast.run, cast.plan),
    RuntimeEntry(Simplify, simplify.run, simplify.plan),
)

REGISTRY: dict[str, RuntimeEntry[Any]] = {op_of(entry.params): entry for entry in _ENTRIES}
"""The runtime passes by op; `planish.contract.onnx_models` refuses all others at submit."""
