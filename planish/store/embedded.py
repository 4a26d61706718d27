"""A Redis of our own for ``planish serve``: private, durable, restarted when it dies."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import redis

from planish.contract.errors import Unavailable
from planish.store.connection import connect
from planish.store.durable import make_private
from planish.store.server_binary import ServerBinary, find_server

MAX_SOCKET_PATH = 107  # bytes; sockaddr_un holds 108 with its NUL
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
BACKOFF_SECONDS = (0.1, 5.0)
STEADY_SECONDS = 60.0

log = logging.getLogger(__name__)

_CONFIG = """\
port 0
unixsocket {socket}
unixsocketperm 700
dir {folder}
pidfile {pidfile}
logfile {logfile}
daemonize no
databases 16
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
stream-node-max-bytes 1024
maxmemory-policy noeviction
"""


class EmbeddedRedis:
    """One server for one data folder.

    The server runs in its own session, so Ctrl-C reaches it only through `stop`. It outlives a
    killed owner; the next owner of the folder ends it in order and starts a fresh one.
    """

    def __init__(self, data_dir: Path, server: ServerBinary | None = None) -> None:
        """Use ``data_dir/redis``; `server` is found when not given."""
        self._folder = data_dir.resolve() / "redis"
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock_fd: int | None = None
        self.socket = socket_path(self._folder)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{quote(str(self.socket))}"

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid if self._process is not None else None

    def start(self) -> str:
        """Start the server, wait until it has loaded its data, and return its URL.

        Raises:
            Unavailable: no server is installed, the folder is in use, or the server does not start.
        """
        server = self._server or find_server()
        make_private(self._folder)
        self._lock()
        try:
            self._end_previous()
            self._write_config()
            self._stopping.clear()
            self._launch(server)
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(
            target=self._watch, args=(server,), name="embedded-redis", daemon=True
        )
        self._watcher.start()
        log.info("embedded Redis %s at %s", ".".join(map(str, server.version)), self.socket)
        return self.url

    def stop(self) -> None:
        """Shut the server down in order and let the folder go; harmless when it does not run."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join()
            self._watcher = None
        if self._process is not None:
            self._shut_down(self._process)
            self._process = None
        if self._lock_fd is not None:
            self.socket.unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = None

    def _lock(self) -> None:
        fd = os.open(self._folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise Unavailable(
                f"another planish serve uses {self._folder.parent}; stop it, or choose another "
                "--data-dir"
            ) from None
        self._lock_fd = fd

    def _write_config(self) -> None:
        text = _CONFIG.format(
            socket=_quoted(self.socket),
            folder=_quoted(self._folder),
            pidfile=_quoted(self._folder / "redis.pid"),
            logfile=_quoted(self._folder / "redis.log"),
        )
        path = self._folder / "redis.conf"
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(text)

    def _launch(self, server: ServerBinary) -> None:
        self._process = subprocess.Popen(
            [server.path, self._folder / "redis.conf"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            start_new_session=True,
        )

    def _await_ready(self) -> None:
        """Wait for PING; a server that loads its data answers LOADING until then."""
        assert self._process is not None  # noqa: S101 - launched before
        deadline = time.monotonic() + READY_SECONDS
        with connect(self.url) as client:
            while time.monotonic() < deadline and self._process.poll() is None:
                with suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return
                time.sleep(0.01)
        raise Unavailable(f"the embedded Redis does not start: {self._last_words()}")

    def _last_words(self) -> str:
        try:
            lines = (self._folder / "redis.log").read_text("utf-8", "replace").splitlines()
        except FileNotFoundError:
            lines = []
        return " | ".join(lines[-3:]) or "it wrote no log"

    def _watch(self, server: ServerBinary) -> None:
        """Start the server again when it dies, slower each time that it dies young."""
        shortest, longest = BACKOFF_SECONDS
        pause, born = shortest, time.monotonic()
        while not self._stopping.wait(0.1):
            assert self._process is not None  # noqa: S101 - set until stop() has joined this thread
            if self._process.poll() is None:
                continue
            pause = (
                shortest if time.monotonic() - born > STEADY_SECONDS else min(2 * pause, longest)
            )
            log.error(
                "embedded Redis ended with status %s; it starts again in %.1f s: %s",
                self._process.returncode,
                pause,
                self._last_words(),
            )
            if self._stopping.wait(pause):
                return
            born = time.monotonic()
            self._launch(server)

    def _shut_down(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            _ask_to_end(self.url)
        for escalate in (process.terminate, process.kill):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("embedded Redis %d does not end by itself", process.pid)
                escalate()
        process.wait()

    def _end_previous(self) -> None:
        """End the server that a killed owner left behind; we hold its lock now."""
        pid = self._previous()
        if pid is None:
            return
        log.warning("an earlier owner left Redis %d running; it is shut down first", pid)
        _ask_to_end(self.url)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._gone_within(pid, STOP_SECONDS):
                return
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if not self._gone_within(pid, STOP_SECONDS):
            raise Unavailable(f"Redis {pid} holds {self._folder} and cannot be ended")

    def _previous(self) -> int | None:
        """Return the process in the pid file if it still is a server in this folder."""
        try:
            pid = int((self._folder / "redis.pid").read_text())
            home = Path(f"/proc/{pid}/cwd").readlink()
        except (OSError, ValueError):
            return None
        return pid if home == self._folder else None

    def _gone_within(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._previous() == pid:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def socket_path(folder: Path) -> Path:
    """Return a socket path that the kernel takes: in `folder`, else in a short private one."""
    direct = folder / "redis.sock"
    if len(os.fsencode(direct)) <= MAX_SOCKET_PATH:
        return direct
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    name = f"planish-{os.getuid()}-{digest}"
    short = make_private(_short_base(name) / name)
    status = short.lstat()
    if short.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise Unavailable(f"{short} belongs to somebody else; remove it or set XDG_RUNTIME_DIR")
    return short / "redis.sock"


def _short_base(name: str) -> Path:
    """Return the first folder for temporary things in which a socket's path is short enough."""
    bases = (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp")  # noqa: S108
    fitting = (
        Path(base)
        for base in bases
        if base and len(os.fsencode(Path(base) / name / "redis.sock")) <= MAX_SOCKET_PATH
    )
    return next(fitting)


def _ask_to_end(url: str) -> None:
    with suppress(redis.RedisError), connect(url) as client:
        client.shutdown()


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
