"""Landlock: which files a process may touch, whatever its user may (kernel 5.13 and newer).

``Documentation/userspace-api/landlock.rst``. A newer ABI covers more; what the kernel does not know
is left out of the rules, and `covered` says what is left.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from planish.guard.libc import syscall

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1


class Access(IntFlag):
    """What may be done with a file or folder; values of ``linux/landlock.h``."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.READ_FILE | Access.READ_DIR
RUN = READ | Access.EXECUTE
WRITE = (
    READ
    | Access.WRITE_FILE
    | Access.TRUNCATE
    | Access.REMOVE_DIR
    | Access.REMOVE_FILE
    | Access.MAKE_DIR
    | Access.MAKE_REG
)
WRITE_LINKS = WRITE | Access.MAKE_SYM | Access.MAKE_SOCK | Access.MAKE_FIFO | Access.REFER
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV

_OF_FILES = (
    Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
)
_TCP = 0b11
_SCOPES = 0b11

# What each ABI added; see "Compatibility" in landlock.rst.
COVERED = (
    (1, "files"),
    (2, "links between folders"),
    (3, "truncation"),
    (4, "TCP ports"),
    (5, "ioctl on devices"),
    (6, "signals and abstract sockets"),
)


@dataclass(frozen=True)
class Grant:
    """A file or folder, and what may be done with it and everything below it."""

    path: Path
    access: Access


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def landlock_abi() -> int:
    """Return the kernel's Landlock version; 0 where there is none."""
    try:
        return syscall(_CREATE, None, 0, _VERSION_FLAG)
    except OSError:
        return 0


def covered(abi: int) -> tuple[str, ...]:
    """Return what an ABI lets us guard, in words."""
    return tuple(words for least, words in COVERED if abi >= least)


def restrict(grants: Iterable[Grant], abi: int, *, tcp: bool) -> None:
    """Take every right to files from this thread and what it starts, but for `grants`.

    Needs no_new_privs. Signals and abstract sockets reach only processes of the same domain then.

    Args:
        grants: what stays allowed; a path that does not exist is left out.
        abi: of this kernel; at least 1.
        tcp: whether TCP stays allowed, to any port.

    Raises:
        OSError: the kernel refused; nothing is restricted.
    """
    handled = handled_access(abi)
    attr = _RulesetAttr(handled, 0 if tcp or abi < 4 else _TCP, _SCOPES if abi >= 6 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    ruleset = syscall(_CREATE, attr, size, 0)
    try:
        for grant in grants:
            _allow(ruleset, grant, handled)
        syscall(_RESTRICT, ruleset, 0)
    finally:
        os.close(ruleset)


def handled_access(abi: int) -> Access:
    """Return the accesses that an ABI can deny."""
    top = {1: Access.MAKE_SYM, 2: Access.REFER, 3: Access.TRUNCATE, 4: Access.TRUNCATE}
    return Access((int(top.get(abi, Access.IOCTL_DEV)) << 1) - 1)


def _allow(ruleset: int, grant: Grant, handled: Access) -> None:
    try:
        parent = os.open(grant.path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        access = grant.access & handled
        if not grant.path.is_dir():
            access &= _OF_FILES
        if access:
            syscall(_ADD_RULE, ruleset, _PATH_BENEATH, _PathBeneath(access, parent), 0)
    finally:
        os.close(parent)
