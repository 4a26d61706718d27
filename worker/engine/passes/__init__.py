"""The passes. `REGISTRY` and `entry_for` are of `registry`, imported when first asked for.

The passes use parts of the engine that look at layers with `worker.engine.passes.layers`; importing
that must not import all passes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from worker.engine.passes.protocol import Context, Outcome, PassEntry

if TYPE_CHECKING:
    from worker.engine.passes.registry import REGISTRY, entry_for

__all__ = ["REGISTRY", "Context", "Outcome", "PassEntry", "entry_for"]


def __getattr__(name: str) -> object:
    if name in ("REGISTRY", "entry_for"):
        return getattr(importlib.import_module("worker.engine.passes.registry"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
