"""Peak memory of the process that calls it; the standard library alone, for lean side processes."""

from __future__ import annotations

from pathlib import Path

_STATUS = Path("/proc/self/status")
_PEAK = "VmHWM:"


def peak_memory_bytes() -> int | None:
    """Return the largest resident size of this process so far; None where the system hides it."""
    if not _STATUS.is_file():
        return None
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    peak = next((line for line in lines if line.startswith(_PEAK)), None)
    return int(peak.split()[1]) * 1024 if peak is not None else None
