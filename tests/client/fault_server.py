"""A real HTTP server over sockets that fails on purpose: cuts, resets, ends early, lies."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Received:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Answer:
    """What to send. `stated` is a Content-Length that lies; `reset` cuts with a TCP RST."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stated: int | None = None
    reset: bool = False
    silent: bool = False


Handler = Callable[[Received], Answer]


class FaultServer:
    """Answers each request with what `handler` says; one connection for each request."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[Received] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def asked(self, method: str, path: str) -> list[Received]:
        return [r for r in self.requests if (r.method, r.path) == (method, path)]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self._one(connection)

    def _one(self, connection: socket.socket) -> None:
        connection.settimeout(10)
        received = _read_request(connection)
        if received is None:
            return
        self.requests.append(received)
        answer = self.handler(received)
        if not answer.silent:
            length = len(answer.body) if answer.stated is None else answer.stated
            head = [f"HTTP/1.1 {answer.status} Said", "Connection: close"]
            if received.method != "HEAD" and "Transfer-Encoding" not in answer.headers:
                head.append(f"Content-Length: {length}")
            head += [f"{name}: {value}" for name, value in answer.headers.items()]
            body = b"" if received.method == "HEAD" else answer.body
            connection.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        if answer.reset:
            # Let the body arrive before the reset overtakes it.
            threading.Event().wait(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _read_request(connection: socket.socket) -> Received | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        piece = connection.recv(65536)
        if not piece:
            return None
        raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    while len(body) < length:
        piece = connection.recv(65536)
        if not piece:
            return None
        body += piece
    return Received(method, target, headers, body)
