"""What this container or machine has: processor cores, and kills for want of memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Return the cores that this process may use: affinity, and the container's quota if lower."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def oom_kills() -> int:
    """Return how many processes of this container were killed for memory; 0 if unknown."""
    for file in (*_files("memory.events", ""), *_files("memory.oom_control", "memory")):
        for line in _lines(file):
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def _quota() -> float | None:
    for file in _files("cpu.max", ""):
        for line in _lines(file):
            quota, period = line.split()
            return None if quota == "max" else int(quota) / int(period)
    for folder in _files("", "cpu"):
        quota_us = "".join(_lines(folder / "cpu.cfs_quota_us"))
        period_us = "".join(_lines(folder / "cpu.cfs_period_us"))
        if quota_us and period_us and int(quota_us) > 0:
            return int(quota_us) / int(period_us)
    return None


def _files(name: str, controller: str) -> list[Path]:
    """Return where a file of our control group may lie: under our path, or at a container's root.

    Args:
        name: the file.
        controller: of cgroup v1; empty for the unified v2 tree.
    """
    root = _CGROUPS / controller
    paths = []
    for line in _lines(Path("/proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            paths.append(root / path.lstrip("/") / name)
    return [*paths, root / name]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
