"""What a conversion may use, and what of its outcome can be believed."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from pydantic import ValidationError

from planish.contract.columns import Columns
from planish.contract.errors import ConversionFailed, InvalidModel, SandboxUnavailable
from planish.contract.parts import is_index, is_rider
from planish.contract.problem import FieldError
from planish.gate.arrays import read_headers
from planish.gate.identify import identify_model
from planish.gate.onnx import read_onnx
from planish.gate.onnx.batch import check_parts
from planish.gate.pt2 import check_content, open_package
from planish.gate.safetensors import looks_like_safetensors, read_tensors
from worker.exchange import PartPath, Request, Stored
from worker.sandbox.order import ANSWER, DATA_ROLES, Answer, Limits, Order, Role

MAX_ANSWER = 1 << 20
BYTES_PER_SECOND = 20 << 20  # a slow disk reads an upload of this size in a second
DATA_BYTES_PER_SECOND = 5 << 20  # images are decoded at some 30 MB/s on an idle core
MEMORY, MEMORY_FACTOR = 4 << 30, 4  # addresses: a thread's stack and arena take 200 MB of them
OUTPUT, OUTPUT_FACTOR = 64 << 20, 2
MAX_DATA, SPARE_DISK = 64 << 30, 1 << 30


def limits_for(stored: Stored, role: Role, request: Request, seconds: float) -> Limits:
    """Return what opening an upload may take: a fixed part, and more for larger ones.

    Args:
        stored: where the upload lies.
        role: data may unpack to much more than it has; models do not.
        request: says threads, and on which disk the outcome will lie.
        seconds: wall clock for a small upload.
    """
    size = sum(path.stat().st_size for path in _paths(stored))
    pace = DATA_BYTES_PER_SECOND if role in DATA_ROLES else BYTES_PER_SECOND
    wall = seconds + size / pace
    output = OUTPUT + OUTPUT_FACTOR * size
    if role in DATA_ROLES:
        free = shutil.disk_usage(request.scratch).free - SPARE_DISK
        output = max(output, min(MAX_DATA, free))
    return Limits(
        seconds=wall,
        cpu_seconds=round(wall * request.threads) + 10,
        memory=MEMORY + MEMORY_FACTOR * size,
        output=output,
    )


def check_plain(stored: Stored, role: Role) -> None:
    """Refuse everything but safetensors and companions.

    Raises:
        SandboxUnavailable: names the file.
    """
    for path, name in _named(stored):
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            plain = looks_like_safetensors(file.read(16), size)
        if not plain and not is_rider(name) and not is_index(name):
            detail = (
                f"the {role} is not safetensors, and this worker's kernel gives no sandbox to open "
                "it in; send safetensors, or have the operator see planish doctor and "
                "PLANISH_UNGUARDED"
            )
            raise SandboxUnavailable(detail, (FieldError(pointer=f"/files/{role}", detail=detail),))


def read_answer(folder: Path) -> Answer | None:
    """Return what a converter wrote; None where it wrote nothing that can be read."""
    try:
        descriptor = os.open(folder / ANSWER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return Answer.model_validate_json(file.read(MAX_ANSWER))
    except (OSError, ValidationError):
        return None


def replaced(order: Order, name: str, columns: Columns | None) -> Stored:
    """Take a converted file over, and return what stands for the upload from now on.

    Args:
        order: what was opened.
        name: of the file in its result.
        columns: what became of those of a parquet file.

    Raises:
        InvalidInput: it is no plain file, or the gate does not take it for canonical form.
    """
    converted = _take(order.result / name, order.folder)
    if columns is not None:
        columns.write(converted)
    if order.role in DATA_ROLES:
        packed = [h.name for h in read_headers(converted) if h.member and h.member.deflated]
        if packed:
            raise ConversionFailed(f"the array {packed[0]!r} is still packed")
    else:
        _check_model(converted)
    if not isinstance(order.source, tuple):
        return converted
    riders = tuple(part for part in order.source if is_rider(part.name))
    return (*riders, PartPath(name=converted.name, path=converted))


def written(folder: Path) -> int:
    """Return how many bytes of disk the files below a folder take."""
    total = 0
    for current, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(current, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _take(path: Path, folder: Path) -> Path:
    """Make a file ours and read-only, in a folder that is ours; its writer is dead."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConversionFailed(f"it is no plain file ({error.strerror})") from None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ConversionFailed("it is no plain file")
        os.fchown(descriptor, os.geteuid(), os.getegid())
        os.fchmod(descriptor, 0o400)
    finally:
        os.close(descriptor)
    return path.rename(folder / path.name)


def _check_model(path: Path) -> None:
    kind = identify_model(path)
    if kind == "pt2":
        package = open_package(path)
        check_content(package, package.program())
    elif kind == "safetensors":
        read_tensors(path, InvalidModel)
    elif kind == "onnx":
        check_parts(read_onnx(path), {})
    else:
        raise ConversionFailed(f"{kind} is no canonical form")


def _named(stored: Stored) -> list[tuple[Path, str]]:
    if isinstance(stored, tuple):
        return [(part.path, part.name) for part in stored]
    return [(stored, "")]


def _paths(stored: Stored) -> list[Path]:
    return [path for path, _ in _named(stored)]
