"""Fixtures shared by all tests. What a laptop may lack is skipped there and fails on CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from planish.contract.errors import Unavailable

ROOT = Path(__file__).resolve().parents[1]


def missing(what: str) -> None:
    """Skip on a laptop, fail on CI: a silent skip there would hide a broken machine."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public models and data; skipped visibly where there is none."""
    named = os.environ.get("PLANISH_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data: set PLANISH_TEST_DATA to its folder ({folder} is absent)")
    return folder


def run_redis(folder: Path) -> Iterator[str]:
    """Yield the URL of a real Redis of our own, stopped afterwards."""
    from planish.store.embedded import EmbeddedRedis

    server = EmbeddedRedis(folder)
    try:
        url = server.start()
    except Unavailable as error:
        missing(error.detail)
    yield url
    server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis for the session; tests must neither rely on its being empty nor empty it."""
    yield from run_redis(tmp_path_factory.mktemp("redis"))
