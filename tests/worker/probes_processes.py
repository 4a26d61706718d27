"""Hostile acts on all else: programs, network, processes, the kernel, resources."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

from planish.guard.libc import prctl, syscall
from tests.worker.probe_room import DENIED, GROUPS, NUMBERS, Room, asks, probe

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
