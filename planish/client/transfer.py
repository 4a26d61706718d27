"""How far an upload or download is, for progress bars."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Transfer:
    """A file on its way.

    Attributes:
        name: of the file.
        phase: ``hash`` (reading it for its sha256), ``upload``, ``download``; ``present`` when
            nothing needs to be sent or fetched.
        done: bytes so far.
        total: bytes in all.
    """

    name: str
    phase: Literal["hash", "upload", "download", "present"]
    done: int
    total: int


OnTransfer = Callable[[Transfer], None]


def ignore(_transfer: Transfer) -> None:
    """Listen to nothing."""
