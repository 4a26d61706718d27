"""What load.py needs to open the files of one job: exact versions, for pip."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from planish.contract.spec import Output
from planish.contract.wire import REQUIREMENTS

NEEDS: dict[Output, tuple[str, ...]] = {
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "pt2": ("torch",),
    "safetensors": ("torch", "safetensors"),
    "aotinductor": ("torch",),
}
"""Packages beside numpy, by output."""


def write_requirements(out_dir: Path, outputs: Iterable[Output]) -> Path:
    """Write ``requirements.txt`` and return its path.

    Args:
        out_dir: the folder of artifacts.
        outputs: that lie in it.
    """
    users: dict[str, list[Output]] = {"numpy": []}
    for output in outputs:
        for package in NEEDS[output]:
            users.setdefault(package, []).append(output)
    lines = ["# What load.py needs, in the versions that it was checked with."]
    for package, formats in users.items():
        note = f"  # {', '.join(formats)}" if formats else ""
        lines.append(f"{package}=={_version(package)}{note}")
    path = out_dir / REQUIREMENTS
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _version(package: str) -> str:
    """Return an installed version without its build: ``2.13.0`` for ``2.13.0+cpu``."""
    return metadata.version(package).partition("+")[0]
