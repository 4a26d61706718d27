"""Writing files so that a crash leaves them whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from planish.store.ids import new_ulid

TEMPORARY = ".part"


def put_new(path: Path, content: bytes) -> bool:
    """Create a file once: written and synced under another name, then linked to its own.

    Returns:
        False when the name was already taken; the other content stays.

    Raises:
        FileNotFoundError: the folder does not exist.
        OSError: the disk is full or broken; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{new_ulid()}{TEMPORARY}")
    try:
        write_synced(temporary, content)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in the place of one that is there; readers see the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{new_ulid()}{TEMPORARY}")
    try:
        write_synced(temporary, content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Create `path` (mode 0600, must not exist) and fsync its content."""
    with open(
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb"
    ) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    with _opened(folder) as fd:
        os.fsync(fd)


def sync_tree(folder: Path) -> None:
    """Make a folder with all files and folders below it durable; children before parents."""
    for current, _, names in os.walk(folder, topdown=False):
        for name in names:
            with suppress(FileNotFoundError), _opened(Path(current, name)) as fd:
                os.fsync(fd)
        sync_folder(Path(current))


def make_private(folder: Path) -> Path:
    """Create a folder with mode 0700, and its parents, where it does not exist; return it."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)
