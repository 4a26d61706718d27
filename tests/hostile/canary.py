"""What runs when a hostile file is executed: it leaves a file and knocks at a socket."""

from __future__ import annotations

import socket
from pathlib import Path


class Canary:
    """A file that must not appear and a port that nobody may call.

    `code` is Python source that does both; `gadget` is an object whose pickle runs it.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "canary"
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])

    @property
    def code(self) -> str:
        """Source without line breaks."""
        return (
            f"open({str(self.file)!r}, 'a').close(); "
            f"__import__('socket').create_connection(('127.0.0.1', {self.port})).close()"
        )

    @property
    def shell(self) -> str:
        """A shell command that does the same."""
        return f"touch {self.file}; : > /dev/tcp/127.0.0.1/{self.port}"

    def gadget(self) -> Gadget:
        """Return an object whose pickle runs `code`."""
        return Gadget(self.code)

    def fired(self) -> list[str]:
        """Return what happened since the last call; nothing is what should be."""
        found = [f"the file {self.file} appeared"] if self.file.exists() else []
        self.file.unlink(missing_ok=True)
        try:
            while True:
                self._listener.accept()[0].close()
                found.append("somebody called the canary's port")
        except BlockingIOError:
            return found

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()


class Gadget:
    """Pickles as a call of `exec`."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, (self.code,)
