"""The few C calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Argument = int | bytes | None | ctypes.Array[ctypes.c_char] | ctypes.Structure


def syscall(number: int, *arguments: Argument) -> int:
    """Make a system call; integers are passed as 64 bits.

    Raises:
        OSError: with the call's errno.
    """
    passed = [_passed(argument) for argument in arguments]
    return _checked(int(_libc.syscall(ctypes.c_long(number), *passed)))


def prctl(option: int, *arguments: Argument) -> int:
    """Change the calling process, with up to four arguments; zeros stand for the rest.

    Raises:
        OSError: the kernel refused, or does not know the option.
    """
    padded = (*arguments, *(0,) * (4 - len(arguments)))
    return _checked(int(_libc.prctl(ctypes.c_int(option), *map(_passed, padded))))


def _passed(argument: Argument) -> object:
    if isinstance(argument, int):
        return ctypes.c_ulong(argument % (1 << 64))
    return ctypes.byref(argument) if isinstance(argument, ctypes.Structure) else argument


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
