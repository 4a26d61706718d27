"""The data folder and the ports."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from planish.doctor.check import Check
from planish.store.denied import DeniedFiles

LOW_DISK, NO_DISK = 10 << 30, 1 << 30
READABLE = (Path("/usr"), Path("/opt"), Path("/bin"), Path("/lib"), Path("/proc"), Path("/sys"))


def look_at_places(data_dir: Path, port: int) -> Iterator[Check]:
    """Yield what there is to say about the data folder and the API's port.

    Args:
        data_dir: everything that is kept.
        port: that `planish serve` and `planish api` listen on.
    """
    yield from _data_folder(data_dir.absolute())
    yield _disk(data_dir.absolute())
    yield _port(port)


def _data_folder(folder: Path) -> Iterator[Check]:
    inside = [str(p) for p in (*READABLE, Path(sys.prefix)) if folder.resolve().is_relative_to(p)]
    if inside:
        detail = f"{folder} lies in {inside[0]}, which locked-in processes may read; move it out"
        yield Check(name="data_place", outcome="failure", detail=detail)
    if not folder.is_dir():
        yield Check(name="data_folder", outcome="note", detail=f"{folder} is not there yet")
        return
    mode, owner = folder.stat().st_mode & 0o777, folder.stat().st_uid
    if mode & 0o077:
        detail = f"{folder} has mode {mode:04o}; others may look in: chmod 700 {folder}"
        yield Check(name="data_folder", outcome="warning", detail=detail)
    elif owner != os.geteuid():
        detail = f"{folder} belongs to user {owner}, this is user {os.geteuid()}"
        yield Check(name="data_folder", outcome="warning", detail=detail)
    else:
        yield Check(name="data_folder", outcome="ok", detail=f"{folder}, mode {mode:04o}")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"planish")
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror}"
        yield Check(name="data_writable", outcome="failure", detail=detail)
    refused = sum(entry.refused for entry in DeniedFiles(folder).known())
    if refused:
        detail = f"{refused} file(s) broke the sandbox and are refused; planish denied list"
        yield Check(name="denied_files", outcome="note", detail=detail)


def _disk(folder: Path) -> Check:
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / (1 << 30):.1f} GiB free on the disk of {folder}"
    if free < NO_DISK:
        return Check(name="disk", outcome="failure", detail=f"{detail}; uploads will be refused")
    return Check(name="disk", outcome="warning" if free < LOW_DISK else "ok", detail=detail)


def _port(port: int) -> Check:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            detail = f"127.0.0.1:{port} is taken ({error.strerror}); is Planish running?"
            return Check(name="port", outcome="note", detail=detail)
    return Check(name="port", outcome="ok", detail=f"127.0.0.1:{port} is free")
