"""Hostile acts, one function each, run in the converter's lock; loaded by a zygote without torch.

A probe returns when its act worked, and raises when something stopped it. One that would be too
dangerous in earnest asks the kernel in a way that is refused later than the guard: any other error
than the guard's own shows that nothing stood in the way.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from planish.contract.spec import Spec
from planish.guard.libc import prctl, syscall
from planish.guard.lock import close
from planish.guard.syscalls import machine, numbers
from tests.conftest import ROOT
from worker.exchange import Request
from worker.sandbox.order import Limits, Order
from worker.sandbox.profiles import converter_lock, engine_lock, give_folder, unused_user

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


# --- reading ---------------------------------------------------------------------------------


@probe("read")
def read_etc_passwd(_: Room) -> object:
    return Path("/etc/passwd").read_bytes()


@probe("read")
def read_etc_shadow(_: Room) -> object:
    return Path("/etc/shadow").read_bytes()


@probe("read")
def read_another_jobs_spec(room: Room) -> object:
    return (room.other_job / "SPEC.json").read_bytes()


@probe("read")
def list_other_jobs(room: Room) -> object:
    return list(room.other_job.parent.iterdir())


@probe("read")
def read_its_own_order(room: Room) -> object:
    return (room.order.folder / "order.json").read_bytes()


@probe("read")
def read_the_services_source(_: Room) -> object:
    return (ROOT / "service" / "app.py").read_bytes()


@probe("read")
def read_the_supervisors_environment(room: Room) -> object:
    return Path(f"/proc/{room.supervisor}/environ").read_bytes()


@probe("read")
def read_the_supervisors_memory(room: Room) -> object:
    return Path(f"/proc/{room.supervisor}/maps").read_bytes()


@probe("read")
def read_init_command_line(_: Room) -> object:
    return Path("/proc/1/cmdline").read_bytes()


@probe("read")
def read_init_environment(_: Room) -> object:
    return Path("/proc/1/environ").read_bytes()


@probe("read")
def list_processes(_: Room) -> object:
    return list(Path("/proc").iterdir())


@probe("read")
def list_the_root_folder(_: Room) -> object:
    return list(Path("/").iterdir())


@probe("read")
def list_the_home_folder(_: Room) -> object:
    return list(Path("/root" if os.geteuid() == 0 else "/home").iterdir())


@probe("read")
def climb_out_by_dots(room: Room) -> object:
    return list((room.result / ".." / ".." / "..").iterdir())


@probe("read")
def climb_out_by_proc_root(_: Room) -> object:
    return list(Path("/proc/self/root/etc").iterdir())


# --- writing ---------------------------------------------------------------------------------


@probe("write")
def write_outside(room: Room) -> object:
    return (room.outside / "written").write_bytes(b"x")


@probe("write")
def write_beside_its_folder(room: Room) -> object:
    return (room.order.folder / "written").write_bytes(b"x")


@probe("write")
def write_to_shared_memory(_: Room) -> None:
    path = Path(f"/dev/shm/planish-probe-{os.getpid()}")
    path.write_bytes(b"x")
    path.unlink()


@probe("write")
def overwrite_its_input(room: Room) -> object:
    return os.open(room.upload, os.O_WRONLY)


@probe("write")
def truncate_its_input(room: Room) -> None:
    os.truncate(room.upload, 1)


@probe("write")
def truncate_its_input_by_opening_it(room: Room) -> None:
    os.close(os.open(room.upload, os.O_RDONLY | os.O_TRUNC))


@probe("write")
def delete_its_input(room: Room) -> None:
    room.upload.unlink()


@probe("write")
def open_up_its_input(room: Room) -> None:
    room.upload.chmod(0o777)


@probe("write")
def move_its_result_out(room: Room) -> None:
    (room.result / "moved").write_bytes(b"x")
    (room.result / "moved").rename(room.outside / "moved")


# --- links and nodes -------------------------------------------------------------------------


@probe("links")
def symlink_out(room: Room) -> object:
    (room.result / "link").symlink_to("/etc/passwd")
    return (room.result / "link").read_bytes()


@probe("links")
def hardlink_its_input(room: Room) -> None:
    os.link(room.upload, room.result / "hard")


@probe("links")
def make_a_device_node(room: Room) -> None:
    os.mknod(room.result / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))


@probe("links")
def make_a_pipe(room: Room) -> None:
    os.mkfifo(room.result / "fifo")


@probe("links")
def make_a_setuid_program(room: Room) -> None:
    (room.result / "program").write_bytes(b"#!/bin/sh\n")
    (room.result / "program").chmod(0o4755)


@probe("links")
def give_a_file_away(room: Room) -> None:
    (room.result / "gift").write_bytes(b"x")
    os.chown(room.result / "gift", os.getuid(), os.getgid())


# --- programs --------------------------------------------------------------------------------


@probe("programs")
def run_a_system_program(_: Room) -> None:
    os.execv("/bin/true", ["true"])


@probe("programs")
def run_a_file_of_its_own(room: Room) -> None:
    program = room.result / "program"
    program.write_bytes(Path(os.path.realpath("/bin/true")).read_bytes())
    with suppress(PermissionError):
        program.chmod(0o755)
    os.execv(program, ["true"])


@probe("programs")
def run_from_memory(_: Room) -> None:
    memory = os.memfd_create("program")
    os.write(memory, Path(os.path.realpath("/bin/true")).read_bytes())
    os.execve(memory, ["true"], {})


@probe("programs")
def start_a_process(_: Room) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


# --- network ---------------------------------------------------------------------------------


def _socket(name: str, family: int, kind: int) -> None:
    def act(_: Room) -> None:
        socket.socket(family, kind).close()

    GROUPS.setdefault("network", {})[name] = act


_socket("tcp_socket", socket.AF_INET, socket.SOCK_STREAM)
_socket("udp_socket", socket.AF_INET, socket.SOCK_DGRAM)
_socket("tcp6_socket", socket.AF_INET6, socket.SOCK_STREAM)
_socket("unix_socket", socket.AF_UNIX, socket.SOCK_STREAM)
_socket("netlink_socket", socket.AF_NETLINK, socket.SOCK_RAW)
_socket("packet_socket", socket.AF_PACKET, socket.SOCK_RAW)
_socket("raw_socket", socket.AF_INET, socket.SOCK_RAW)


@probe("network")
def socket_pair(_: Room) -> None:
    for end in socket.socketpair():
        end.close()


# --- other processes -------------------------------------------------------------------------


@probe("processes")
def signal_the_supervisor(room: Room) -> None:
    os.kill(room.supervisor, 0)


@probe("processes")
def signal_everybody(_: Room) -> None:
    os.kill(-1, 0)


@probe("processes")
def hold_the_supervisor(room: Room) -> None:
    os.close(os.pidfd_open(room.supervisor))


@probe("processes")
def lower_the_supervisors_limits(room: Room) -> object:
    return resource.prlimit(room.supervisor, resource.RLIMIT_NOFILE)


@probe("processes")
def survive_the_supervisor(_: Room) -> None:
    prctl(1, 0)


@probe("processes")
def read_memory_of_the_supervisor(room: Room) -> None:
    here = ctypes.create_string_buffer(b"secret")
    there = ctypes.create_string_buffer(8)
    near = struct.pack("QQ", ctypes.addressof(there), 6)
    far = struct.pack("QQ", ctypes.addressof(here), 6)
    try:
        syscall(NUMBERS["process_vm_readv"], room.supervisor, near, 1, far, 1, 0)
    except OSError as error:
        if error.errno in DENIED:
            raise


asks("processes", "trace_a_process", "ptrace", 0, 0, 0, 0)

# --- the kernel ------------------------------------------------------------------------------

asks("kernel", "new_user_namespace", "unshare", 0x10000000)
asks("kernel", "new_mount_namespace", "unshare", 0x00020000)
asks("kernel", "join_a_namespace", "setns", (1 << 64) - 1, 0)
asks("kernel", "mount", "mount", b"none", b"/nowhere", b"nosuchfs", 0, None)
asks("kernel", "unmount", "umount2", b"/nowhere", 0)
asks("kernel", "pivot_root", "pivot_root", b"/nowhere", b"/nowhere")
asks("kernel", "open_a_mount", "fsopen", b"nosuchfs", 0)
asks("kernel", "chroot", "chroot", b"/")
asks("kernel", "bpf", "bpf", 0, None, 0)
asks("kernel", "keyring", "keyctl", 0, (1 << 64) - 3, 0)
asks("kernel", "add_a_key", "add_key", b"user", b"planish", b"x", 1, (1 << 64) - 2)
asks("kernel", "io_uring", "io_uring_setup", 1, None)
asks("kernel", "userfaultfd", "userfaultfd", 0xFFFF)
asks("kernel", "performance_counters", "perf_event_open", None, 0, 0, 0, 0)
asks("kernel", "open_by_handle", "open_by_handle_at", (1 << 64) - 1, None, 0)
asks("kernel", "kexec", "kexec_load", 0, 1 << 20, None, 0xFFFF)
asks("kernel", "load_a_module", "init_module", None, 0, b"")
asks("kernel", "reboot", "reboot", 1, 2, 3, None)
asks("kernel", "swap", "swapon", b"/nowhere", 0)
asks("kernel", "kernel_log", "syslog", 10, None, 0)
asks("kernel", "set_the_clock", "clock_settime", 99, None)
asks("kernel", "personality", "personality", 0xFFFFFFFF)
asks("kernel", "become_root", "setresuid", 0, 0, 0)
asks("kernel", "other_groups", "setgroups", 0, None)
asks("kernel", "undo_no_core_dumps", "setrlimit", 4, struct.pack("QQ", 1 << 40, 1 << 40))
asks("kernel", "io_ports", "iopl", 99)

# --- resources -------------------------------------------------------------------------------


@probe("resources")
def take_memory(_: Room) -> object:
    return len(bytearray(1 << 30))


@probe("resources")
def map_memory(_: Room) -> object:
    return len(mmap.mmap(-1, 1 << 30))


@probe("resources")
def fill_the_disk(room: Room) -> object:
    return (room.result / "large").write_bytes(bytes(4 << 20))


@probe("resources")
def fill_the_log(_: Room) -> None:
    for _ in range(64):
        os.write(1, bytes(64 << 10))


@probe("resources")
def open_many_files(room: Room) -> None:
    opened = [os.open(room.upload, os.O_RDONLY) for _ in range(800)]
    for number in opened:
        os.close(number)


@probe("resources")
def start_many_threads(_: Room) -> None:
    done = threading.Event()
    threading.stack_size(64 << 10)
    try:
        for _ in range(700):
            threading.Thread(target=done.wait, daemon=True).start()
    finally:
        done.set()


@probe("resources")
def spin(_: Room) -> None:
    until = time.process_time() + 1.5
    while time.process_time() < until:
        pass


# --- what is handed down ---------------------------------------------------------------------


@probe("inherited")
def find_an_open_descriptor(_: Room) -> None:
    """Look for more than input, output, errors and the channel."""
    known = {os.fstat(number).st_ino for number in (0, 1, 2)}
    found = []
    for number in range(3, 256):
        with suppress(OSError):
            found.append(os.fstat(number).st_ino)
    if len(set(found) - known) <= 1:
        raise PermissionError(errno.EPERM, "nothing but the channel is open")


# --- the door --------------------------------------------------------------------------------


def enter(argument: str, channel: int) -> int:
    """Act in a process whose parent stands for the supervisor; its exit code is the act's.

    `argument` is JSON: group, probe, profile (converter, engine or none), plain (as a user without
    any capability), folder.
    """
    ask = json.loads(argument)
    if ask["plain"]:
        _become_nobody()
    pid = os.fork()
    if pid == 0:
        _act(ask, channel)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256


def _request(order: Order) -> Request:
    """A job with nothing but a model, whose folder is the conversion's."""
    return Request(
        job_id="job",
        kind="job",
        spec=order.spec,
        model=order.files[0],
        artifacts=order.result,
        scratch=order.spare,
        draft=order.result / "draft.json",
        threads=1,
        guarded=True,
    )


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl(4, 1)  # its environment stays readable for its own user


def _act(ask: dict[str, str | bool], channel: int) -> None:
    folder = Path(str(ask["folder"]))
    order = Order(
        role="model",
        source=folder / "blobs" / "upload",
        spec=Spec.model_validate({"recipe": [{"op": "simplify"}]}),
        folder=folder / "jobs" / "mine",
        threads=1,
        limits=Limits(seconds=10, cpu_seconds=1, memory=256 << 20, output=1 << 20),
        guarded=ask["profile"] != "none",
    )
    os.open(folder / "jobs" / "other" / "SPEC.json", os.O_RDONLY)  # forgotten, to be found
    supervisor = os.getppid()
    room = Room(order, folder / "jobs" / "other", folder / "outside", supervisor)
    user = unused_user(os.getpid()) if os.geteuid() == 0 else None
    if ask["profile"] == "converter":
        give_folder(order, user)
        close(converter_lock(order, user, channel), supervisor)
    elif ask["profile"] == "engine":
        close(engine_lock(_request(order)), supervisor)
    code = 3
    try:
        GROUPS[str(ask["group"])][str(ask["probe"])](room)
        said = "done"
    except (OSError, MemoryError, RuntimeError) as error:
        said, code = f"{type(error).__name__}: {error}", 4
        if isinstance(error, OSError) and error.errno == errno.ENOSYS:
            said += " (not there)"
    signal.alarm(0)
    os.write(channel, said.encode())
    os._exit(code)
