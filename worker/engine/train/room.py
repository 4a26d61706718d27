"""How much memory this process may still take: of the machine, of its container, of its limits."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
# What is limited, what is used, and the name of cached pages of files that the system can drop.
_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_LIMITS = {resource.RLIMIT_AS: "VmSize", resource.RLIMIT_DATA: "VmData"}


def free_memory() -> int:
    """Return the bytes of the narrowest of all bounds; what nothing bounds is counted as 1 TiB."""
    machine = _fields(Path("/proc/meminfo")).get("MemAvailable", 1 << 30)
    return max(0, min(1 << 40, machine * 1024, *_container(), *_limits()))


def _limits() -> Iterator[int]:
    """Yield what is left of the process's own limits."""
    taken = _fields(Path("/proc/self/status"))
    for limit, name in _LIMITS.items():
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY and name in taken:
            yield soft - taken[name] * 1024


def _container() -> Iterator[int]:
    """Yield what is left of the control groups that this process is in."""
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            names = _V1 if controllers else _V2
            root = _CGROUPS / ("memory" if controllers else "")
            for folder in {root / path.lstrip("/"), root}:
                yield from _group(folder, *names)


def _group(folder: Path, limit: str, used: str, cached: str) -> Iterator[int]:
    most, taken = "".join(_lines(folder / limit)), "".join(_lines(folder / used))
    if most.isdecimal() and taken.isdecimal():
        dropped = _fields(folder / "memory.stat").get(cached, 0)
        yield int(most) - int(taken) + dropped


def _fields(file: Path) -> dict[str, int]:
    """Return the numbers of a file of names and numbers."""
    found = {}
    for line in _lines(file):
        name, _, value = line.replace(":", " ").partition(" ")
        number = value.split()
        if number and number[0].isdecimal():
            found[name] = int(number[0])
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
