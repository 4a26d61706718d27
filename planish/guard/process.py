"""A process's own limits, user and descriptors."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

from planish.guard.libc import prctl, syscall
from planish.guard.syscalls import machine

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 24, 38, 47
_AMBIENT_CLEAR = 4
_CAPABILITIES_3 = 0x20080522
_CAPSET = {"x86_64": 126, "aarch64": 91}
_DAC_OVERRIDE, _DAC_READ_SEARCH = 1, 2
_LAST_CAPABILITY = 63
_CPU_SLACK = 3600
FIRST_UNUSED_USER = 1_900_000_000


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = tuple(
        (f"{name}{half}", ctypes.c_uint32)
        for half in (0, 1)
        for name in ("effective", "permitted", "inheritable")
    )


def no_new_privileges() -> None:
    """No program that is started from here on gains rights; raises OSError."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def die_with(parent: int) -> None:
    """Die when the parent does; a change of user forgets that, so this comes after it."""
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def not_dumpable() -> None:
    """No core file, and no other process of this user may look inside; raises OSError."""
    prctl(_PR_SET_DUMPABLE, 0)


def close_others(kept: Iterable[int]) -> None:
    """Close every descriptor but `kept`."""
    after = 0
    for number in sorted(set(kept)):
        if number > after:  # an empty range would close everything
            os.closerange(after, number)
        after = number + 1
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) >= after:
            with contextlib.suppress(OSError):  # that of the listing itself is closed already
                os.close(int(path.name))


def limit(kind: int, value: int) -> None:
    """Set a limit of setrlimit(2), for good; one that is lower already stays."""
    _, hard = resource.getrlimit(kind)
    known = hard != resource.RLIM_INFINITY
    if known and value >= hard:
        return
    # past the hard limit of processor time comes SIGKILL, past the soft one a signal that says why
    slack = _CPU_SLACK if kind == resource.RLIMIT_CPU else 0
    resource.setrlimit(kind, (value, min(value + slack, hard) if known else value + slack))


def address_space() -> int:
    """Return how many bytes of addresses this process has mapped."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def capabilities() -> int:
    """Return the effective capabilities of this process as bits."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def may_become_another_user() -> bool:
    """Tell whether `become` would work here, as far as capabilities say."""
    needed = (6, 7, _reads_all(capabilities()))  # SETGID, SETUID
    return None not in needed and all(
        capabilities() >> bit & 1 for bit in needed if bit is not None
    )


def become(user: int) -> None:
    """Become a user that owns nothing, with the one capability left that reads others' files.

    So a file need not be copied or opened up to be read; Landlock says which ones are.

    Raises:
        OSError: it cannot; the process may be half changed then.
    """
    kept = _reads_all(capabilities())
    if kept is None:
        raise PermissionError("no capability to read other users' files")
    _drop_bounding_set()
    prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _set_capabilities(1 << kept)


def drop_capabilities() -> None:
    """Give up every capability, for good; the user stays the same.

    Raises:
        OSError: the kernel refused.
    """
    _drop_bounding_set()
    prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR)
    _set_capabilities(0)


def _reads_all(held: int) -> int | None:
    found = (bit for bit in (_DAC_READ_SEARCH, _DAC_OVERRIDE) if held >> bit & 1)
    return next(found, None)


def _drop_bounding_set() -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        with contextlib.suppress(OSError):  # beyond the last one, or without CAP_SETPCAP
            prctl(_PR_CAPBSET_DROP, capability)


def _set_capabilities(bits: int) -> None:
    low, high = bits & 0xFFFFFFFF, bits >> 32
    number = _CAPSET[machine() or ""]
    syscall(number, _Header(_CAPABILITIES_3, 0), _Sets(low, low, 0, high, high, 0))
