"""A TCP proxy that resets connections after some bytes of the client, as a bad line does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Passes connections on to `port`; `allow` says how many client bytes the next one gets.

    It is told how many were cut so far, and returns None to let everything through.

    `port` may be changed while it runs: the next connection goes to the new one.
    """

    def __init__(self, port: int, allow: Callable[[int], int | None]) -> None:
        self.port, self.allow = port, allow
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.port), 5)
            except OSError:
                return
            with server:
                server.settimeout(None)
                back = threading.Thread(target=_copy, args=(server, client, None), daemon=True)
                back.start()
                if not _copy(client, server, self.allow(self.cuts)):
                    self.cuts += 1
                    for side in (client, server):
                        with contextlib.suppress(OSError):
                            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                            side.shutdown(socket.SHUT_RDWR)
                back.join(5)


def _copy(source: socket.socket, target: socket.socket, left: int | None) -> bool:
    """Pass bytes on; return False when the allowance was used up before the end."""
    with contextlib.suppress(OSError):
        while left is None or left > 0:
            piece = source.recv(65536 if left is None else min(65536, left))
            if not piece:
                break
            target.sendall(piece)
            left = left if left is None else left - len(piece)
        else:
            return False
        target.shutdown(socket.SHUT_WR)
    return True
