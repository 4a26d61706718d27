"""Where the store lies: one data folder and one Redis."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ENV_DATA_DIR = "PLANISH_DATA_DIR"
ENV_REDIS_URL = "PLANISH_REDIS_URL"
DEFAULT_DATA_DIR = Path(".planish")
DEFAULT_REDIS_URL = "redis://127.0.0.1:6379/0"


@dataclass(frozen=True)
class StoreSettings:
    """What every process of one installation shares.

    Attributes:
        data_dir: blobs, job folders and idempotency keys; on a fleet a shared file system.
        redis_url: ``redis://``, ``rediss://`` or ``unix://``; the ledger's database.
    """

    data_dir: Path
    redis_url: str

    @staticmethod
    def from_env() -> StoreSettings:
        """Return the settings named by ``PLANISH_DATA_DIR`` and ``PLANISH_REDIS_URL``."""
        return StoreSettings(
            data_dir=Path(os.environ.get(ENV_DATA_DIR) or DEFAULT_DATA_DIR).resolve(),
            redis_url=os.environ.get(ENV_REDIS_URL) or DEFAULT_REDIS_URL,
        )

    def to_env(self) -> dict[str, str]:
        """Return the variables that give a child process these settings."""
        return {ENV_DATA_DIR: str(self.data_dir), ENV_REDIS_URL: self.redis_url}
