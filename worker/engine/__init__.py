"""The optimization engine: a plain torch library behind a few names.

The names are loaded on first use: torch takes seconds to import, and some modules below this
package need none of it.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.engine.load import load_model
    from worker.engine.model import Model
    from worker.engine.pipeline import JobInputs, make_plan, optimize

# onnxruntime calls home from a thread of its own, unless this is set before its import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["JobInputs", "Model", "load_model", "make_plan", "optimize"]

_HOMES = {
    "JobInputs": "worker.engine.pipeline",
    "Model": "worker.engine.model",
    "load_model": "worker.engine.load",
    "make_plan": "worker.engine.pipeline",
    "optimize": "worker.engine.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
