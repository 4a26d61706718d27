"""A parquet file in the layout of Hugging Face's datasets becomes arrays that can be mapped.

The row groups are read piece by piece and written into one scratch .safetensors file, so that
neither the file nor the arrays ever lie in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from planish.contract.errors import InvalidData, MissingDependency
from planish.contract.spec import Spec
from planish.gate.columns import match_columns
from planish.gate.match import MASK, TARGETS
from planish.gate.parquet import read_parquet
from planish.gate.signature import Signature
from worker.engine.load.columns import Plan, rows_at_once
from worker.engine.load.makers import Images, Maker
from worker.engine.load.scratch import Scratch
from worker.engine.load.writer import ArrayWriter

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

MAX_UNPACKED = 64 << 30


@dataclass(frozen=True)
class Unpacked:
    """What a parquet file became.

    Attributes:
        path: of a .safetensors file with one array for each column that is used.
        names: of the arrays, by the model input, or ``targets``, that they are.
        has_images: whether images were decoded: they lie with their channels last.
    """

    path: Path
    names: Mapping[str, str]
    has_images: bool


def unpack_parquet(
    path: Path, inputs: Sequence[Signature], spec: Spec, part: str, scratch: Scratch
) -> Unpacked:
    """Write the columns that a job needs as arrays.

    Args:
        path: the parquet file.
        inputs: what the model takes.
        spec: says task, window and how images are resized.
        part: ``data`` or ``test_data``, for errors.
        scratch: takes the arrays.

    Raises:
        InvalidData: damaged, nulls, rows of different shapes, images that cannot be decoded.
        MissingDependency: pyarrow or Pillow is not installed.
        StorageFull: no room for the arrays.
    """
    match = match_columns(inputs, read_parquet(path), spec, part)
    with _damage_named(part):
        makers = Plan(_opened(path), match, inputs, spec, part).makers()
        target = scratch.file(_size(makers, part))
        with ArrayWriter(target, {name: maker.shape for name, maker in makers.items()}) as writer:
            _write(_opened(path), makers, writer)
    names = {feed.input.name: feed.column.name if feed.column else MASK for feed in match.feeds}
    if TARGETS in makers:
        names[TARGETS] = TARGETS
    elif match.targets is not None:
        names[TARGETS] = match.targets.name
    return Unpacked(target, names, any(isinstance(maker, Images) for maker in makers.values()))


def _write(file: ParquetFile, makers: Mapping[str, Maker], writer: ArrayWriter) -> None:
    columns = sorted({maker.column for maker in makers.values()})
    size = sum(maker.shape.nbytes for maker in makers.values())
    rows = rows_at_once(size, file.metadata.num_rows)
    at = 0
    for batch in file.iter_batches(rows, columns=columns, use_threads=False):
        for name, maker in makers.items():
            writer.write(name, maker.make(batch.column(maker.column), at))
        at += len(batch)


def _size(makers: Mapping[str, Maker], part: str) -> int:
    size = sum(maker.shape.nbytes for maker in makers.values())
    if size > MAX_UNPACKED:
        raise InvalidData(
            f"{part}: the parquet file becomes arrays of {size} bytes; at most {MAX_UNPACKED} "
            "are taken"
        )
    return size


def _opened(path: Path) -> ParquetFile:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise MissingDependency(
            "parquet files need pyarrow on the worker: pip install 'planish[worker]'"
        ) from None
    return ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


@contextmanager
def _damage_named(part: str) -> Iterator[None]:
    """Turn what pyarrow raises on a damaged file into `InvalidData`."""
    try:
        yield
    except MemoryError:
        raise
    except (OSError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        if not type(error).__module__.startswith("pyarrow") and not isinstance(error, OSError):
            raise
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise InvalidData(f"{part}: the parquet file cannot be read: {said}") from None
