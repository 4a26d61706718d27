"""A canary for each test, and a real API over HTTP without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planish.store.settings import StoreSettings
from service.settings import ServiceSettings
from tests.hostile.canary import Canary
from tests.service.conftest import Api, serve


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Canary]:
    canary = Canary(tmp_path)
    yield canary
    canary.close()


@pytest.fixture(scope="module")
def api(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    store = StoreSettings(tmp_path_factory.mktemp("data"), redis_url)
    yield from serve(ServiceSettings(store, port=0, max_upload_bytes=64 << 20))
