"""The machine: kernel and its guards, user, processors, memory, accelerators, clock."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from planish.contract.guards import NEEDED, is_guarded
from planish.doctor.check import Check
from planish.guard.kernel import kernel_guards

OLDEST_PYTHON = (3, 11)
MIN_MEMORY = 4 << 30
BUILT = 1_767_225_600  # 2026-01-01: no clock that is right shows less
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "i8mm")


def look_at_machine() -> Iterator[Check]:
    """Yield what there is to say about this machine."""
    yield _python()
    yield from _guards()
    yield _user()
    yield _processors()
    yield _memory()
    yield _accelerators()
    yield _clock()


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.system()} {platform.release()} "
    detail = f"{found}({platform.machine()})"
    if sys.version_info < OLDEST_PYTHON:
        return Check(name="python", outcome="failure", detail=f"{detail}; 3.11 or newer is needed")
    return Check(name="python", outcome="ok", detail=detail)


def _guards() -> Iterator[Check]:
    guards = kernel_guards()
    for guard in guards:
        missing = "warning" if guard.name in NEEDED else "note"
        yield Check(
            name=f"guard_{guard.name}",
            outcome="ok" if guard.given else missing,
            detail=guard.detail,
        )
    if is_guarded(guards):
        yield Check(name="sandbox", outcome="ok", detail="uploads are opened behind these guards")
        return
    detail = (
        "uploads cannot be locked in here: workers take safetensors alone. Use a newer kernel, or "
        "set PLANISH_UNGUARDED=allow if you trust everybody who may upload"
    )
    yield Check(name="sandbox", outcome="warning", detail=detail)


def _user() -> Check:
    user = os.geteuid()
    if user == 0:
        detail = (
            "this is root; uploads are opened under another user, but a worker needs no root: run "
            "it as a user of its own"
        )
        return Check(name="user", outcome="warning", detail=detail)
    return Check(name="user", outcome="ok", detail=f"user {user}, not root")


def _processors() -> Check:
    known = hasattr(os, "sched_getaffinity")
    allowed = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    flags = set(_first("/proc/cpuinfo", ("flags", "Features")).split())
    useful = " ".join(name for name in _FEATURES if name in flags)
    detail = f"{allowed} cores; {useful or 'nothing that int8 gains from'}"
    return Check(name="processors", outcome="note", detail=detail)


def _memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = f"{total / (1 << 30):.1f} GiB of memory"
    if total < MIN_MEMORY:
        return Check(name="memory", outcome="warning", detail=f"{size}; workers want 4 or more")
    return Check(name="memory", outcome="ok", detail=size)


def _accelerators() -> Check:
    cards = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    driver = _first("/proc/driver/nvidia/version", ("NVRM version",))
    if not cards:
        return Check(name="accelerators", outcome="note", detail="no NVIDIA GPU; jobs run on CPUs")
    shown = f"{len(cards)} NVIDIA GPU(s): {', '.join(cards)}; {driver}"
    return Check(name="accelerators", outcome="ok", detail=shown)


def _clock() -> Check:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < BUILT:
        detail = f"the clock shows {shown}; keys and links would be expired or eternal"
        return Check(name="clock", outcome="failure", detail=detail)
    return Check(name="clock", outcome="ok", detail=shown)


def _first(path: str, keys: tuple[str, ...]) -> str:
    """Return the value of the first line ``key : value`` of a file; empty where there is none."""
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""
