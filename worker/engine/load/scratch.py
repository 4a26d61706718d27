"""Room on disk for what a data file holds packed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from planish.contract.errors import StorageFull

SPARE_BYTES = 256 << 20  # of the disk, left to others


class Scratch:
    """A temporary folder that is made when it is needed and goes when nothing refers to it.

    It lies in `tempfile.gettempdir()`: for a job that is the attempt's own folder. Whoever maps a
    file of it keeps the scratch, so that the file can be opened again by name.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._files = 0

    def file(self, size: int) -> Path:
        """Return a path for a new file.

        Args:
            size: bytes that it will have.

        Raises:
            StorageFull: the disk has not got so much.
        """
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="planish-data-"))
            weakref.finalize(self, _remove, self._folder, os.getpid())
        free = shutil.disk_usage(self._folder).free
        if size + SPARE_BYTES > free:
            raise StorageFull(
                f"unpacking the data takes {size:,} bytes of temporary disk space; {free:,} are "
                "free on the worker"
            )
        self._files += 1
        return self._folder / f"{self._files}.raw"


@contextmanager
def disk_watched() -> Iterator[None]:
    """Turn a disk that fills up into an error that says so; raises `StorageFull`."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise StorageFull(
            "the worker's temporary disk space ran out while the data was unpacked"
        ) from None


def _remove(folder: Path, owner: int) -> None:
    """Delete the folder, but not from a process that was forked off."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
