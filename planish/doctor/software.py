"""What is installed: the libraries of each part, and the floors below which they are not safe."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from planish.doctor.check import Check

SERVICE = ("fastapi", "uvicorn", "celery", "redis")
WORKER = ("torch", "torchao", "safetensors", "onnx", "onnxruntime")
CHOICE = ("openvino", "pyarrow", "transformers", "timm", "torchvision")

# Below these, known holes are open (docs/security.md).
FLOORS = {
    "torch": (2, 13),
    "onnx": (1, 23),
    "transformers": (5, 3),
    "safetensors": (0, 8),
    "python-multipart": (0, 0, 27),
}


def look_at_software() -> Iterator[Check]:
    """Yield a line for each part of Planish, and for each library that is too old."""
    yield Check(name="planish", outcome="ok", detail=f"planish {_version('planish') or 'source'}")
    yield _part("service", SERVICE)
    yield _part("worker", WORKER)
    found = [f"{name} {known}" for name in CHOICE if (known := _version(name))]
    without = [name for name in CHOICE if not _version(name)]
    detail = f"{', '.join(found) or 'none'}; not installed: {', '.join(without) or 'none'}"
    yield Check(name="more_libraries", outcome="note", detail=detail)
    yield from _old()
    yield _compiler()


def _part(name: str, libraries: tuple[str, ...]) -> Check:
    found = {library: _version(library) for library in libraries}
    missing = [library for library, known in found.items() if known is None]
    if missing:
        detail = f"not installed: {', '.join(missing)}; pip install 'planish[{name}]' brings it"
        return Check(name=f"{name}_libraries", outcome="note", detail=detail)
    shown = ", ".join(f"{library} {known}" for library, known in found.items())
    return Check(name=f"{name}_libraries", outcome="ok", detail=shown)


def _old() -> Iterator[Check]:
    for name, floor in FLOORS.items():
        known = _version(name)
        if known is not None and _numbers(known) < floor:
            least = ".".join(map(str, floor))
            detail = f"{name} {known} has known holes; install {least} or newer"
            yield Check(name=f"{name}_version", outcome="failure", detail=detail)


def _compiler() -> Check:
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        detail = "no C++ compiler: torch.compile and the output aotinductor do not work"
        return Check(name="compiler", outcome="note", detail=detail)
    return Check(name="compiler", outcome="ok", detail=found)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: ``2.13.0+cpu`` → (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, match[0].split("."))) if match else ()
