"""API, worker and Redis as one thing that starts, is ready, and stops without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

from planish.client.connection import Address
from planish.launch.apps import (
    SERVICE_MODULES,
    STORE_MODULES,
    WORKER_MODULES,
    CannotStart,
    environment,
    require,
)

READY_SECONDS = 180.0
WORKER_STOP_SECONDS = 30.0
API_STOP_SECONDS = 20.0
REDIS_STOP_SECONDS = 60.0
LOOK_SECONDS = 0.05
LAST_LINES = 15


@dataclass(frozen=True)
class StackSettings:
    """What to start.

    Attributes:
        data_dir: everything that is kept lies here.
        host: address to listen on.
        port: TCP port; 0 takes a free one.
        redis_url: of a server that runs already; None starts the embedded one.
        workers: jobs at a time.
        log: file for what the processes say; None leaves it on stderr.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    redis_url: str | None = None
    workers: int = 1
    log: Path | None = None


class Stack:
    """The processes of one service; a context manager that stops what it started."""

    def __init__(self, settings: StackSettings) -> None:
        self.settings = settings
        self.url = ""
        self._keeper: subprocess.Popen[str] | None = None
        self._pipe = -1
        self._parts: dict[str, subprocess.Popen[bytes]] = {}
        self._log: IO[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and return when jobs are taken; `url` is set then.

        Raises:
            CannotStart: with what is missing, taken or wrong. Call `stop` then, too.
        """
        settings = self.settings
        require("all", (*SERVICE_MODULES, *WORKER_MODULES, *STORE_MODULES))
        port = free_port(settings.host, settings.port)
        settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        if settings.log is not None:
            self._log = settings.log.open("ab")
        shared = {
            "PLANISH_DATA_DIR": str(settings.data_dir.resolve()),
            "PLANISH_REDIS_URL": settings.redis_url or self._start_redis(),
        }
        listen = ("--host", settings.host, "--port", str(port))
        self._start_part("API", shared, "service.main", *listen)
        self._start_part("worker", shared, "worker.main", "--concurrency", str(settings.workers))
        self.url = url_of(settings.host, port)
        self._await_ready()

    def ended(self) -> str | None:
        """Return the name of a part that has ended by itself, None while all run."""
        if self._keeper is not None and self._keeper.poll() is not None:
            return "Redis keeper"
        return next((n for n, part in self._parts.items() if part.poll() is not None), None)

    def stop(self) -> None:
        """Stop worker, API and Redis, in this order; what runs goes back to the queue."""
        for name, seconds in (("worker", WORKER_STOP_SECONDS), ("API", API_STOP_SECONDS)):
            if (part := self._parts.pop(name, None)) is not None:
                _end(part, seconds)
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._keeper is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._keeper.wait(REDIS_STOP_SECONDS)
            _kill_group(self._keeper)
            if self._keeper.stdout is not None:
                self._keeper.stdout.close()
            self._keeper = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def kill(self) -> None:
        """Kill API and worker at once; `stop` still ends Redis in order."""
        for part in self._parts.values():
            _kill_group(part)

    def _start_redis(self) -> str:
        reader, self._pipe = os.pipe()
        module = "planish.launch.keeper"
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", module, str(self.settings.data_dir.resolve())],
                stdin=reader,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env=environment({}),
                text=True,
                start_new_session=True,
            )
        finally:
            os.close(reader)
        line = self._keeper.stdout.readline() if self._keeper.stdout else ""
        answer = json.loads(line) if line.strip() else {"error": "the Redis keeper does not start"}
        if "error" in answer:
            raise CannotStart(answer["error"])
        return str(answer["url"])

    def _start_part(self, name: str, shared: dict[str, str], module: str, *arguments: str) -> None:
        tie = (sys.executable, "-m", "planish.launch.tied", str(os.getpid()), module)
        self._parts[name] = subprocess.Popen(
            [*tie, *arguments],
            env=environment(shared, module),
            stdin=subprocess.DEVNULL,
            stdout=self._log or sys.stderr.fileno(),
            stderr=self._log,
            start_new_session=True,
            pass_fds=[self._pipe] if self._pipe >= 0 else [],
        )

    def _await_ready(self) -> None:
        address = Address(self.url, None)
        deadline = time.monotonic() + READY_SECONDS
        reason = "no answer"
        with httpx.Client(headers=address.headers, trust_env=False, timeout=5.0) as http:
            while time.monotonic() < deadline:
                if (name := self.ended()) is not None:
                    raise CannotStart(f"the {name} ended before it was ready{self._last_words()}")
                try:
                    answer = http.get(f"{self.url}/readyz")
                    if answer.status_code == httpx.codes.OK:
                        return
                    reason = answer.text[:200]
                except httpx.TransportError:
                    pass
                time.sleep(LOOK_SECONDS)
        raise CannotStart(
            f"not ready after {READY_SECONDS:g} seconds: {reason}{self._last_words()}"
        )

    def _last_words(self) -> str:
        if self.settings.log is None:
            return "; see above"
        lines = self.settings.log.read_text("utf-8", "replace").splitlines()[-LAST_LINES:]
        return ":\n" + "\n".join(lines)


def free_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0.

    Raises:
        CannotStart: the port is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            return int(probe.getsockname()[1])
    except OverflowError:
        raise CannotStart(f"port {port} is none; use 1 to 65535, or 0 for a free one") from None
    except OSError as error:
        if port and isinstance(error, socket.gaierror) is False:
            hint = f"is a server running there? choose another one, e.g. --port {port + 1}"
            raise CannotStart(
                f"cannot listen on {host}:{port} ({error.strerror}); {hint}"
            ) from None
        raise CannotStart(f"cannot listen on {host}: {error.strerror}") from None


def url_of(host: str, port: int) -> str:
    """Return where a client on this machine finds a server that listens on `host`."""
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - looked up, not bound
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def _end(process: subprocess.Popen[bytes], seconds: float) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    _kill_group(process)


def _kill_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """End what is left of a process's session; a process that has ended may have left others."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
