"""The health check of a worker's container."""

from __future__ import annotations

from pathlib import Path

from planish.store.connection import connect
from planish.store.fleet import FleetRegistry
from planish.store.health import announced
from planish.store.settings import StoreSettings


def test_worker_is_healthy_once_it_is_announced(redis_url: str, tmp_path: Path) -> None:
    settings = StoreSettings(data_dir=tmp_path, redis_url=redis_url)
    assert not announced(settings, "box-7")
    FleetRegistry(connect(redis_url)).register_worker("box-7:12:abcd", 0, ("planish.jobs",), 30)
    assert announced(settings, "box-7")
    assert not announced(settings, "box")
