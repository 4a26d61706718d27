"""Remembers unfinished uploads between processes: one small file each, in the user's cache."""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

MAX_AGE_SECONDS = 7 * 86_400
MAX_BYTES = 200


class Memory:
    """The unfinished uploads to one server under one key.

    A cache: whatever goes wrong with it only means that an upload begins anew.

    Args:
        server: its URL.
        api_key: whose uploads they are; only a digest of it leaves this object.
        folder: None takes ``planish/uploads`` in the user's cache folder (XDG base directories).
    """

    def __init__(self, server: str, api_key: str | None = None, folder: Path | None = None) -> None:
        self._owner = hashlib.sha256(f"{server}\n{api_key or ''}".encode()).hexdigest()
        self._folder = folder or _default_folder()

    def recall(self, file_id: str) -> str | None:
        """Return where a file's upload is, None when none is known."""
        with suppress(OSError, UnicodeDecodeError):
            path = self._path(file_id)
            if time.time() - path.stat().st_mtime < MAX_AGE_SECONDS:
                text = path.read_bytes()[:MAX_BYTES].decode("ascii").strip()
                return text if text.startswith("/uploads/") else None
        return None

    def note(self, file_id: str, location: str) -> None:
        """Remember where a file's upload is."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._path(file_id)
            temporary = path.with_name(f"{path.name}.{os.getpid()}")
            temporary.write_text(location, "ascii")
            temporary.replace(path)
            self._tidy()

    def forget(self, file_id: str) -> None:
        """Forget an upload that has ended."""
        with suppress(OSError):
            self._path(file_id).unlink(missing_ok=True)

    def _path(self, file_id: str) -> Path:
        digest = hashlib.sha256(f"{self._owner}\n{file_id}".encode()).hexdigest()
        return self._folder / digest[:40]

    def _tidy(self) -> None:
        """Remove what no server knows any more."""
        for path in self._folder.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > MAX_AGE_SECONDS:
                    path.unlink()


def _default_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(base) / "planish" / "uploads"
