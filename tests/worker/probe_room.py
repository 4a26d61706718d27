"""Where the hostile acts of the probes are, and how one is added."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from planish.guard.libc import syscall
from planish.guard.syscalls import machine, numbers
from worker.sandbox.order import Order

NOBODY = 65534
DENIED = (errno.EPERM, errno.EACCES, errno.ENOSYS)
NUMBERS = numbers(machine() or "x86_64")


@dataclass(frozen=True)
class Room:
    """Where a probe is: the conversion's folder, its input, and what is none of its business."""

    order: Order
    other_job: Path
    outside: Path
    supervisor: int

    @property
    def upload(self) -> Path:
        return self.order.files[0]

    @property
    def result(self) -> Path:
        return self.order.result


Probe = Callable[[Room], object]
GROUPS: dict[str, dict[str, Probe]] = {}


def probe(group: str) -> Callable[[Probe], Probe]:
    def add(function: Probe) -> Probe:
        GROUPS.setdefault(group, {})[function.__name__] = function
        return function

    return add


def asks(group: str, name: str, call: str, *arguments: int | bytes | None) -> None:
    """Add a probe that makes a system call; any error but a denial counts as let through."""

    def act(_: Room) -> None:
        try:
            syscall(NUMBERS[call], *arguments)
        except OSError as error:
            if error.errno in DENIED:
                raise

    GROUPS.setdefault(group, {})[name] = act
