"""The tie between the worker's main process and its pool processes.

One socket pair for each Celery process: the pool processes say through it that they are ready, and
see on it that the main process wants to stop, or is dead: then it is at its end.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket

ENV_LIFELINE = "PLANISH_LIFELINE"
_READY = b"ready"
_FAILED = b"failed"


class Lifeline:
    """The pool process's end. Without a main process (plain ``celery worker``) it never ends."""

    def __init__(self) -> None:
        number = os.environ.get(ENV_LIFELINE)
        self._socket = socket.socket(fileno=os.dup(int(number))) if number else None

    def fileno(self) -> int:
        """Return the descriptor that becomes readable at the end; -1 when there is none."""
        return self._socket.fileno() if self._socket else -1

    @property
    def broken(self) -> bool:
        """Whether the worker is to stop."""
        return self._socket is not None and bool(select.select([self._socket], [], [], 0)[0])

    def report_ready(self) -> None:
        """Tell the main process that this pool process can take work."""
        self._report(_READY)

    def report_failed(self) -> None:
        """Tell the main process that this pool process cannot take work."""
        self._report(_FAILED)

    def _report(self, word: bytes) -> None:
        if self._socket is not None:
            with contextlib.suppress(BrokenPipeError):
                self._socket.send(word)


class MainEnd:
    """The main process's end.

    Attributes:
        inherited: descriptor for the Celery process, named in its environment.
    """

    def __init__(self) -> None:
        self._socket, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inherited = self._theirs.fileno()

    def handed_over(self) -> None:
        """Close the inherited end in this process, so that its closing elsewhere is seen."""
        self._theirs.close()

    def reports(self) -> list[bool]:
        """Return what pool processes have said since the last call: ready, or not."""
        words = []
        while select.select([self._socket], [], [], 0)[0] and (word := self._socket.recv(16)):
            words.append(word == _READY)
        return words

    def cut(self) -> None:
        """Tell the pool processes to stop what they do."""
        self._socket.close()
