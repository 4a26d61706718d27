"""seccomp-bpf: which system calls a process may make, and with which arguments.

seccomp(2); the program is classic BPF over ``struct seccomp_data``. A denied call fails with EPERM
(or ENOSYS), so that libraries can do without it; a foreign instruction set is killed.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from planish.guard.libc import prctl, syscall
from planish.guard.syscalls import AUDIT_ARCH, numbers

_PR_SET_SECCOMP = 22
_MODE_FILTER = 2
_ACTION_AVAIL = 2

_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
ALLOW = 0x7FFF0000
DENY = _ERRNO | errno.EPERM
ABSENT = _ERRNO | errno.ENOSYS

_LOAD, _JEQ, _JGE, _RETURN, _AND = 0x20, 0x15, 0x35, 0x06, 0x54
_NR, _ARCH, _ARGS = 0, 4, 16
_X32 = 0x40000000
_MAX_PROGRAM = 4096

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Check:
    """A condition on an argument: its low 32 bits, under `mask`, are one of `values`."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True)
class Rule:
    """What happens to a call.

    Attributes:
        name: of the call; one that the processor has not got is left out.
        action: `ALLOW`, `DENY` or `ABSENT`.
        checks: the rule holds when all of them do.
    """

    name: str
    action: int
    checks: tuple[Check, ...] = ()


def rules(names: Iterable[str], action: int) -> tuple[Rule, ...]:
    """Return a rule without conditions for each name."""
    return tuple(Rule(name, action) for name in names)


def has_seccomp() -> bool:
    """Tell whether the kernel takes filters that make calls fail."""
    return any(_knows_errno(number) for number in (317, 277))  # x86_64, aarch64


def _knows_errno(number: int) -> bool:
    try:
        syscall(number, _ACTION_AVAIL, 0, _U32(_ERRNO))
    except OSError:
        return False
    return True


class _U32(ctypes.Structure):
    _fields_ = (("value", ctypes.c_uint32),)


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def assemble(rules: Sequence[Rule], default: int, processor: str) -> bytes:
    """Return the BPF program of some rules; the first that holds decides.

    Args:
        rules: in order.
        default: what happens to calls that no rule holds for.
        processor: ``x86_64`` or ``aarch64``.

    Raises:
        ValueError: the program is longer than the kernel takes.
    """
    known = numbers(processor)
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JEQ, 1, 0, AUDIT_ARCH[processor]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NR),
        (_JGE, 0, 1, _X32),
        (_RETURN, 0, 0, DENY),
    ]
    for rule in rules:
        if rule.name in known:
            program += _instructions(rule, known[rule.name])
    program.append((_RETURN, 0, 0, default))
    if len(program) > _MAX_PROGRAM:
        raise ValueError(f"the filter has {len(program)} instructions; at most {_MAX_PROGRAM}")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _instructions(rule: Rule, number: int) -> list[Instruction]:
    if not rule.checks:
        return [(_JEQ, 0, 1, number), (_RETURN, 0, 0, rule.action)]
    # the last instruction loads the number again; a check that fails jumps there
    block: list[Instruction] = [(_RETURN, 0, 0, rule.action), (_LOAD, 0, 0, _NR)]
    for check in reversed(rule.checks):
        block = _tests(check, len(block) - 1) + block
    return [(_JEQ, 0, len(block), number), *block]


def _tests(check: Check, failed: int) -> list[Instruction]:
    """Return a check's instructions; `failed` is how many to jump over behind them."""
    tests: list[Instruction] = [(_LOAD, 0, 0, _ARGS + 8 * check.argument)]
    if check.mask != 0xFFFFFFFF:
        tests.append((_AND, 0, 0, check.mask))
    left = len(check.values) - 1
    for value in check.values:
        tests.append((_JEQ, left, 0 if left else failed, value))
        left -= 1
    return tests


def install(program: bytes) -> None:
    """Put a filter before every call of this thread and what it starts; needs no_new_privs.

    Raises:
        OSError: the kernel refused.
    """
    content = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.addressof(content))
    prctl(_PR_SET_SECCOMP, _MODE_FILTER, header)
