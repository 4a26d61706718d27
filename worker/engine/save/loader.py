"""The script that travels with every model and shows how to load and run it."""

from __future__ import annotations

from pathlib import Path

from planish.contract.wire import LOADER

LOADER_SOURCE = Path(__file__).with_name("standalone.py")


def write_loader(out_dir: Path) -> Path:
    """Write ``load.py`` into a folder of artifacts and return its path.

    The script stands alone: numpy and onnxruntime (for `.onnx`) or torch (for `.pt2`) are all it
    imports. The engine's own reload check runs the very same file.
    """
    path = out_dir / LOADER
    path.write_bytes(LOADER_SOURCE.read_bytes())
    return path
