"""Which guards this kernel gives to this process."""

from __future__ import annotations

import os
import platform
from functools import cache

from planish.contract.guards import FILES, SYSTEM_CALLS, Guard
from planish.guard.landlock import covered, landlock_abi
from planish.guard.process import may_become_another_user
from planish.guard.seccomp import has_seccomp
from planish.guard.syscalls import machine

TCP_ABI, SCOPE_ABI = 4, 6


@cache
def kernel_guards() -> tuple[Guard, ...]:
    """Return every guard, and whether it is there; the same for the life of a process."""
    if platform.system() != "Linux" or machine() is None:
        why = f"only Linux on x86_64 and aarch64 has it; this is {platform.system()} on "
        return (
            Guard(name=FILES, given=False, detail=why + platform.machine()),
            Guard(name=SYSTEM_CALLS, given=False, detail=why + platform.machine()),
        )
    abi = landlock_abi()
    return (_files(abi), _ports(abi), _signals(abi), _system_calls(), _limits(), _other_user())


def _files(abi: int) -> Guard:
    if not abi:
        why = f"kernel {platform.release()} has no Landlock, or it is off (5.13 and newer have it)"
        return Guard(name=FILES, given=False, detail=why)
    return Guard(name=FILES, given=True, detail=f"Landlock ABI {abi}: {', '.join(covered(abi))}")


def _ports(abi: int) -> Guard:
    detail = f"Landlock ABI {abi}; ports need {TCP_ABI} (kernel 6.7). Seccomp denies sockets anyway"
    return Guard(name="tcp_ports", given=abi >= TCP_ABI, detail=detail)


def _signals(abi: int) -> Guard:
    detail = f"Landlock ABI {abi}; signals and abstract sockets need {SCOPE_ABI} (kernel 6.12)"
    return Guard(name="signals", given=abi >= SCOPE_ABI, detail=detail)


def _system_calls() -> Guard:
    given = has_seccomp()
    detail = "seccomp-bpf" if given else "the kernel takes no seccomp filters"
    return Guard(name=SYSTEM_CALLS, given=given, detail=detail)


def _limits() -> Guard:
    detail = "setrlimit: memory, processor time, file size, processes; death with the parent"
    return Guard(name="limits", given=True, detail=detail)


def _other_user() -> Guard:
    given = os.geteuid() == 0 and may_become_another_user()
    if given:
        detail = "running as root: uploads are opened under an unused user"
    elif os.geteuid() == 0:
        detail = "root without the capabilities SETUID, SETGID and DAC_READ_SEARCH"
    else:
        detail = f"running as user {os.geteuid()}: uploads are opened under the same one"
    return Guard(name="other_user", given=given, detail=detail)
