"""All guards in the one order that works: descriptors, limits, user, files, system calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from planish.guard.landlock import Grant, landlock_abi, restrict
from planish.guard.process import (
    become,
    capabilities,
    close_others,
    die_with,
    drop_capabilities,
    limit,
    may_become_another_user,
    no_new_privileges,
    not_dumpable,
)
from planish.guard.seccomp import Rule, assemble, has_seccomp, install
from planish.guard.syscalls import machine


@dataclass(frozen=True)
class Lock:
    """What a process keeps when the door falls shut.

    Attributes:
        grants: files and folders.
        rules: of system calls; the first that holds decides.
        default: what happens to all other calls.
        tcp: whether TCP stays possible as far as Landlock is concerned.
        limits: of setrlimit(2), by their numbers.
        descriptors: that stay open; None: all.
        user: to become where that is possible; None: stay, but without capabilities.
        dumpable: whether debuggers of the same user may look inside.
    """

    grants: Sequence[Grant]
    rules: Sequence[Rule]
    default: int
    tcp: bool = False
    limits: Mapping[int, int] = field(default_factory=dict)
    descriptors: Sequence[int] | None = None
    user: int | None = None
    dumpable: bool = False


def close(lock: Lock, parent: int) -> None:
    """Lock this process in, for good. It must have one thread. What the kernel lacks is left out.

    Args:
        lock: what stays allowed.
        parent: whose death ends this process too.

    Raises:
        OSError: the kernel has a guard and refuses it; the process must not go on then.
    """
    processor = machine()
    if lock.descriptors is not None:
        close_others(lock.descriptors)
    for kind, value in lock.limits.items():
        limit(kind, value)
    if processor is None:
        return
    no_new_privileges()
    if lock.user is not None and may_become_another_user():
        become(lock.user)
    elif capabilities():
        drop_capabilities()
    die_with(parent)
    if not lock.dumpable:
        not_dumpable()
    abi = landlock_abi()
    if abi:
        restrict(lock.grants, abi, tcp=lock.tcp)
    if has_seccomp():
        install(assemble(lock.rules, lock.default, processor))
