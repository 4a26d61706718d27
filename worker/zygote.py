"""The zygote: a process with torch imported and nothing computed; each job forks from it in ms.

``python -m worker.zygote FD MODULE...`` imports the modules, then serves one launcher over the
``SOCK_SEQPACKET`` socket `FD`, one job at a time:

    zygote   → {"ready": true}
    launcher → {"entry": "module:function", "argument": "…"}   + log and channel descriptors
    zygote   → {"pid": 7}                                      + a pidfd
    launcher → {"signal": 15}                                  for the job's process group
    zygote   → {"exit": 0}                                     as `os.waitstatus_to_exitcode` has it

The zygote owns what the job starts. When the job's process ends, everything that descends from it
is killed before the launcher hears of the end; so it is when the launcher goes away, however it
died. It computes nothing itself: OpenMP threads do not survive a fork, their locks do.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from worker.kin import adopt_orphans, die_with_parent

PACKET = 1 << 16
FAULT = 70  # EX_SOFTWARE of sysexits.h: the entry raised


def main(arguments: Sequence[str]) -> int:
    """Import the modules, say ready, serve until the launcher is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    launcher = socket.socket(fileno=int(arguments[0]))
    with _stderr_held_back():
        for module in arguments[1:]:
            importlib.import_module(module)
        threads = len(list(Path("/proc/self/task").iterdir()))
        if threads != 1:
            raise RuntimeError(f"there are {threads} threads after the imports; one may be")
    gc.collect()
    gc.freeze()
    with contextlib.suppress(BrokenPipeError):
        launcher.send(b'{"ready": true}')
    while True:
        packet, descriptors = receive(launcher)
        if packet is None:
            return 0
        _serve(launcher, packet, descriptors)


@contextlib.contextmanager
def _stderr_held_back() -> Iterator[None]:
    """Show what libraries say while they are imported only when the imports fail."""
    stderr, said = os.dup(2), os.memfd_create("said")
    os.dup2(said, 2)
    try:
        yield
    except BaseException:
        os.write(stderr, os.pread(said, PACKET, 0))
        raise
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(said)


def receive(channel: socket.socket) -> tuple[dict[str, str | int] | None, list[int]]:
    """Return one packet and the descriptors that came with it; None when the peer is gone."""
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, PACKET, 2, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None, []
    return (json.loads(data) if data else None), descriptors


def _serve(launcher: socket.socket, request: dict[str, str | int], descriptors: list[int]) -> None:
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        launcher.close()
        _become_job(zygote, str(request["entry"]), str(request["argument"]), *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(pid)
    try:
        with contextlib.suppress(BrokenPipeError):
            socket.send_fds(launcher, [json.dumps({"pid": pid}).encode()], [pidfd])
        _attend(launcher, pid, pidfd)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        _kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
        _kill_orphans()
        with contextlib.suppress(BrokenPipeError):
            launcher.send(json.dumps({"exit": os.waitstatus_to_exitcode(status)}).encode())
    finally:
        os.close(pidfd)


def _attend(launcher: socket.socket, pid: int, pidfd: int) -> None:
    """Pass signals on until the job's process has ended; kill it when the launcher is gone."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(launcher, select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _ in poll.poll()}
        if pidfd in ready:
            return
        packet, _ = receive(launcher)
        if packet is None:
            _kill(pid, signal.SIGKILL)
            return
        _kill(pid, int(packet["signal"]))


def _kill(pid: int, number: int) -> None:
    """Signal a job's group; before the child has made its group, it is alone."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        os.kill(pid, number)


def _kill_orphans() -> None:
    """Kill and reap whatever the job left behind, in its group or not, until nothing is left."""
    while True:
        for pid in _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> Iterator[int]:
    me = str(os.getpid()).encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                # pid (name) state ppid …; the name may hold spaces and brackets
                if (entry / "stat").read_bytes().rpartition(b")")[2].split()[1] == me:
                    yield int(entry.name)


def _become_job(zygote: int, entry: str, argument: str, log: int, channel: int) -> NoReturn:
    """Run the entry in a session of its own, with stdout and stderr in the job's log."""
    code = FAULT
    try:
        os.setsid()
        die_with_parent(zygote)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        faulthandler.enable()
        module, _, function = entry.partition(":")
        code = int(getattr(importlib.import_module(module), function)(argument, channel))
    except BaseException:  # nothing above this frame is the job's: the process ends here
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
