"""The script that travels with every model and shows how to load and run it."""

from __future__ import annotations

from pathlib import Path

from planish.contract.wire import LOADER, REBUILDER

LOADER_SOURCE = Path(__file__).with_name("standalone.py")
REBUILDER_SOURCE = Path(__file__).with_name(REBUILDER)


def write_loader(out_dir: Path) -> Path:
    """Write ``load.py`` into a folder of artifacts and return its path.

    The script stands alone: numpy and the file's runtime are all it imports, and for `.safetensors`
    rebuild.py, which then lies beside it. The engine's own reload check runs the very same files.
    """
    path = out_dir / LOADER
    path.write_bytes(LOADER_SOURCE.read_bytes())
    if any(out_dir.glob("*.safetensors")):
        (out_dir / REBUILDER).write_bytes(REBUILDER_SOURCE.read_bytes())
    return path
