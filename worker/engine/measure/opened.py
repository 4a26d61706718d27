"""A model file opened in a runtime, the same way wherever something is measured.

The opening itself is that of the ``load.py`` that travels with the artifacts, so what is measured
is what a reader of the artifacts gets. This module imports neither torch nor the contract: the
measuring processes stay lean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from worker.engine.save.standalone import Network, load

__all__ = ["Network", "Settings", "open_model"]


@dataclass(frozen=True)
class Settings:
    """How a runtime is set.

    Attributes:
        runtime: ``onnxruntime``; ``openvino`` (in float32, unless the model was cast); or ``torch``
            (the exported program, call by call, without a compiler).
        threads: computing threads of one call.
        device: ``cpu``, or for torch ``cuda``; a call then includes both copies.
        options: further settings by the runtime's own names.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    device: str = "cpu"
    options: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return a text that `from_json` reads."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Settings:
        """Return the settings that `to_json` wrote down."""
        return Settings(**json.loads(text))


def open_model(
    path: Path, settings: Settings, shapes: Sequence[Sequence[int]] | None = None
) -> Network:
    """Open a model file.

    Args:
        path: `.onnx` (onnxruntime, openvino), `.xml` (openvino) or `.pt2` (torch).
        settings: runtime and its settings.
        shapes: of the inputs, if they are the same in every call.
    """
    return load(
        path,
        settings.threads,
        runtime=settings.runtime,
        device=settings.device,
        shapes=shapes,
        options=settings.options,
    )
