"""Is the worker of this machine announced in the fleet? For health checks: exit status 0 or 1."""

from __future__ import annotations

import socket
import sys

from planish.store.connection import connect
from planish.store.fleet import FleetRegistry
from planish.store.settings import StoreSettings


def announced(settings: StoreSettings, host: str) -> bool:
    """Say whether a worker of `host` is ready for jobs; raises what redis-py raises."""
    workers = FleetRegistry(connect(settings.redis_url)).fleet().workers
    return any(worker.id.startswith(host + ":") for worker in workers)


if __name__ == "__main__":
    sys.exit(0 if announced(StoreSettings.from_env(), socket.gethostname()) else 1)
