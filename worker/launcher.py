"""A pool process's end of its zygote: starts it, has it fork jobs, hears how they end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.zygote import receive

log = logging.getLogger(__name__)

ENTRY = "worker.child:main"
OPENER = "worker.sandbox.converter:main"
PRELOAD = (
    *("torch", "torch._dynamo", "torch.optim"),
    *("worker.engine.pipeline", "worker.child", "worker.sandbox.converter"),
)
BOOT_SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[1]

# All that a job inherits: no key, no Redis address. Paths of libraries and time zone only.
_KEPT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
)


class ZygoteFailed(RuntimeError):
    """The zygote did not come up; its own words are in the worker's log."""


class Child:
    """A running job's process.

    Attributes:
        pid: its process id, which is its process group's too.
        channel: what it reports, JSON lines; non-blocking read end of a pipe.
    """

    def __init__(self, zygote: socket.socket, pid: int, pidfd: int, channel: int) -> None:
        self.pid = pid
        self.channel = channel
        self._zygote = zygote
        self._pidfd = pidfd
        self._code: int | None = None

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when `poll` has something to say."""
        return self._zygote.fileno()

    def poll(self) -> int | None:
        """Return the exit code if it has ended (``-9``: by signal 9), without waiting."""
        if self._code is None and select.select([self._zygote], [], [], 0)[0]:
            packet, _ = receive(self._zygote)
            self._code = self._bury() if packet is None else int(packet["exit"])
        return self._code

    def wait(self, seconds: float) -> int | None:
        """Return the exit code, None if it has not ended after `seconds`."""
        if self._code is None:
            select.select([self._zygote], [], [], seconds)
        return self.poll()

    def signal(self, number: signal.Signals) -> None:
        """Signal its whole process group."""
        with contextlib.suppress(OSError):
            self._zygote.send(json.dumps({"signal": int(number)}).encode())

    def close(self) -> None:
        """Release the descriptors; kills it if it still runs."""
        if self._code is None:
            self.signal(signal.SIGKILL)
            select.select([self._zygote], [], [], 5.0)
            self.poll()
        os.close(self._pidfd)
        os.close(self.channel)

    def _bury(self) -> int:
        """The zygote is gone, and the kernel killed the child with it: kill the group's rest."""
        select.select([self._pidfd], [], [], 5.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return -int(signal.SIGKILL)


class Launcher:
    """Owns one zygote and starts it anew when it has died.

    Args:
        preload: modules that the zygote imports; they must not start threads.
        entry: ``module:function`` that a child runs as ``entry(argument, channel)``; it returns the
            exit code.
        opener: likewise, for the process that opens an upload.
    """

    def __init__(
        self, preload: Sequence[str] = PRELOAD, entry: str = ENTRY, opener: str = OPENER
    ) -> None:
        self._preload = tuple(preload)
        self._entry = entry
        self._opener = opener
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the zygote."""
        return self._process.pid if self._process else None

    def start(self) -> socket.socket:
        """Return the socket of a zygote that is up; it takes seconds if there was none.

        Raises:
            ZygoteFailed: it ended or was silent for `BOOT_SECONDS`.
        """
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self.close()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # -P: not from the folder that the worker happens to stand in
        entry = [sys.executable, "-P", "-m", "worker.zygote"]
        command = [*entry, str(theirs.fileno()), *self._preload]
        with theirs:
            self._process = subprocess.Popen(
                command, env=scrubbed(), stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        self._socket = ours
        ready = select.select([ours], [], [], BOOT_SECONDS)[0]
        if not ready or receive(ours)[0] is None:
            self.close()
            reason = "ended at its start" if ready else f"is not up after {BOOT_SECONDS:.0f} s"
            raise ZygoteFailed(f"the zygote {reason}")
        log.info("zygote ready", extra={"zygote": self._process.pid})
        return ours

    def launch(self, argument: str, log_file: int, *, opens: bool = False) -> Child:
        """Fork a child.

        Args:
            argument: handed to the entry.
            log_file: descriptor that becomes its stdout and stderr.
            opens: whether it opens an upload: then it runs the opener, not the entry.

        Raises:
            ZygoteFailed: no zygote could be had.
        """
        if self._child is not None and self._child.poll() is None:
            self.close()  # the last child could not be killed: its zygote still waits for it
        entry = self._opener if opens else self._entry
        request = json.dumps({"entry": entry, "argument": argument}).encode()
        for _ in range(2):
            zygote = self.start()
            self._child = _fork(zygote, request, log_file)
            if self._child is not None:
                return self._child
            self.close()  # it died since the last job
        raise ZygoteFailed("the zygote ends when it is asked for a child")

    def close(self) -> None:
        """End the zygote, and with it what it forked."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None:
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._socket = self._process = self._child = None


def _fork(zygote: socket.socket, request: bytes, log_file: int) -> Child | None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    try:
        socket.send_fds(zygote, [request], [log_file, writer])
        packet, descriptors = receive(zygote)
    except BrokenPipeError:
        packet, descriptors = None, []
    finally:
        os.close(writer)
    if packet is None:
        os.close(reader)
        return None
    return Child(zygote, int(packet["pid"]), descriptors[0], reader)


def scrubbed() -> dict[str, str]:
    """Return the environment of a zygote: an allow list, and one OpenMP thread."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return kept | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "ORT_DISABLE_TELEMETRY": "1",  # it would start a thread, and call home
    }
