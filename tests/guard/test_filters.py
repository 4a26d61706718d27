"""The filters decide as their rules say, on both processors; Landlock's rules fit each ABI."""

from __future__ import annotations

import errno
import os
import struct

import pytest

from planish.contract.guards import NEEDED, Guard, common, is_guarded
from planish.guard.landlock import Access, covered, handled_access
from planish.guard.seccomp import ABSENT, ALLOW, DENY, Check, Rule, assemble
from planish.guard.syscalls import AUDIT_ARCH, numbers
from worker.sandbox.calls import converter_calls, engine_calls

KILL = 0x80000000
PROCESSORS = sorted(AUDIT_ARCH)
CLONE_THREAD, CLONE_NEWUSER = 0x00010000, 0x10000000
PTHREAD = 0x003D0F00


def decide(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """Run a BPF program over one call, as seccomp(2) describes it."""
    padded = [*arguments, *(0,) * (6 - len(arguments))]
    data = struct.pack("=iIQ6Q", number, architecture, 0, *padded)
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    at = value = 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            value = struct.unpack_from("=I", data, constant)[0]
        elif operation == 0x54:
            value &= constant
        elif operation == 0x15:
            at += yes if value == constant else no
        elif operation == 0x35:
            at += yes if value >= constant else no
        else:
            assert operation == 0x06
            return constant


@pytest.fixture(params=PROCESSORS)
def processor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def asker(processor: str, rules: tuple[Rule, ...], default: int):
    program = assemble(rules, default, processor)
    known = numbers(processor)
    return lambda name, *arguments: decide(program, AUDIT_ARCH[processor], known[name], *arguments)


def test_first_rule_that_holds_decides(processor: str) -> None:
    rules = (
        Rule("read", ALLOW, (Check(0, (3, 4)), Check(1, (0x20,), 0xF0))),
        Rule("read", ABSENT, (Check(0, (5,)),)),
        Rule("write", ALLOW),
    )
    ask = asker(processor, rules, DENY)
    assert ask("read", 3, 0x2F) == ask("read", 4, 0x20) == ALLOW
    assert ask("read", 3, 0x10) == ask("read", 6, 0x20) == DENY
    assert ask("read", 5) == ABSENT
    assert ask("write", 9) == ALLOW
    assert ask("close", 9) == DENY
    assert ask("read", 3 + (1 << 32), 0x20) == ALLOW  # the kernel looks at the low half as well


def test_foreign_instruction_sets_are_killed_and_x32_is_denied(processor: str) -> None:
    program = assemble((Rule("read", ALLOW),), ALLOW, processor)
    assert decide(program, 0x40000003, 0) == KILL
    assert decide(program, AUDIT_ARCH[processor], 0x40000000) == DENY


def test_converter_may_compute_and_nothing_else(processor: str) -> None:
    ask = asker(processor, converter_calls(), DENY)
    assert {ask(name) for name in ("read", "openat", "mmap", "futex", "exit_group")} == {ALLOW}
    denied = (
        "socket", "socketpair", "connect", "execve", "execveat", "ptrace", "kill", "unshare",
        "mount", "setns", "bpf", "keyctl", "io_uring_setup", "userfaultfd", "perf_event_open",
        "memfd_create", "chroot", "mknodat", "symlinkat", "linkat", "fchmodat", "setresuid",
        "process_vm_readv", "pidfd_open", "open_by_handle_at", "personality", "setsid",
    )  # fmt: skip
    assert {name: ask(name) for name in denied} == dict.fromkeys(denied, DENY)
    assert ask("openat", 0, 0, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) == ALLOW
    assert ask("openat", 0, 0, os.O_RDONLY | os.O_TRUNC) == ask("truncate") == DENY
    assert ask("clone", PTHREAD) == ALLOW
    assert ask("clone", 17) == ask("clone", CLONE_THREAD | CLONE_NEWUSER) == DENY
    assert ask("clone3") == errno.ENOSYS | 0x00050000
    assert ask("tgkill", os.getpid(), 1, 6) == ALLOW
    assert ask("tgkill", os.getpid(), 1, 9) == ask("tgkill", 1, 1, 6) == DENY
    assert ask("prctl", 1) == ask("prlimit64", 7) == DENY
    assert ask("ioctl", 0, 0x5412) == DENY  # TIOCSTI: words into somebody's terminal


@pytest.mark.parametrize(
    ("sockets", "tcp", "families"),
    [(False, False, set()), (True, False, {1}), (False, True, {1, 2, 10, 16})],
)
def test_engine_has_the_sockets_that_its_job_asks_for(
    processor: str, sockets: bool, tcp: bool, families: set[int]
) -> None:
    ask = asker(processor, engine_calls(sockets=sockets, tcp=tcp), ALLOW)
    assert {family for family in range(50) if ask("socket", family) == ALLOW} == families
    assert ask("execve") == ask("clone", 17) == ask("kill") == ALLOW
    denied = {ask(name) for name in ("ptrace", "unshare", "mount", "bpf", "keyctl", "setuid")}
    assert denied == {DENY}
    assert ask("clone", CLONE_NEWUSER | 17) == DENY


def test_program_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 4096"):
        assemble((Rule("read", ALLOW),) * 3000, DENY, "x86_64")


def test_each_abi_denies_what_it_knows() -> None:
    assert Access.MAKE_SYM in handled_access(1)
    assert Access.REFER not in handled_access(1)
    assert Access.REFER in handled_access(2)
    assert Access.TRUNCATE not in handled_access(2)
    assert Access.TRUNCATE in handled_access(3)
    assert Access.IOCTL_DEV not in handled_access(4)
    assert handled_access(5) == handled_access(9) == Access((1 << 16) - 1)
    assert [len(covered(abi)) for abi in range(8)] == [0, 1, 2, 3, 4, 5, 6, 6]


def test_weakest_machine_decides_what_is_given() -> None:
    strong = tuple(Guard(name=name, given=True, detail="") for name in NEEDED)
    assert is_guarded(common([strong, strong]))
    assert not is_guarded(common([strong, strong[:1]]))
    assert not is_guarded(common([]))
