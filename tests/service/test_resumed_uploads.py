"""The client's uploads in pieces against a real API, over lines that break and through restarts."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import planish
from planish.client import remember, resumable, retry
from planish.contract.errors import DigestMismatch, ServerUnreachable
from planish.store.blobs import Blobs
from tests.client.cutting_proxy import CuttingProxy
from tests.conftest import ROOT
from tests.service.conftest import Api

DATA = random.Random(5).randbytes(6 << 20)
FILE_ID = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path, client: httpx.Client) -> Path:
    client.delete(f"/files/{FILE_ID}")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def proxied(api: Api) -> Iterator[Callable[[Callable[[int], int | None]], CuttingProxy]]:
    proxies: list[CuttingProxy] = []

    def start(allow: Callable[[int], int | None]) -> CuttingProxy:
        proxies.append(CuttingProxy(httpx.URL(api.url).port or 0, allow))
        return proxies[-1]

    yield start
    for proxy in proxies:
        proxy.close()


def cutting(times: int, seed: int) -> Callable[[int], int | None]:
    """Cut connections after some random number of bytes until `times` were cut."""
    dice = random.Random(seed)
    return lambda cuts: None if cuts >= times else int(2 ** dice.uniform(8, 18.5))


def put(kind: str, url: str, path: Path, told: list[planish.Transfer] | None = None) -> str:
    listen = (lambda _: None) if told is None else told.append
    if kind == "sync":
        with planish.Client(url, resumable_bytes=0) as client:
            return client.upload(path, listen).id

    async def go() -> str:
        async with planish.AsyncClient(url, resumable_bytes=0) as client:
            return (await client.upload(path, listen)).id

    return asyncio.run(go())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_upload_that_is_cut_100_times_arrives_with_the_same_sha256(
    api: Api, client: httpx.Client, file: Path, proxied, kind: str
) -> None:
    proxy = proxied(cutting(100, seed=len(kind)))
    assert put(kind, proxy.url, file) == FILE_ID
    stored = api.blobs.path(FILE_ID).read_bytes()
    assert hashlib.sha256(stored).hexdigest() == FILE_ID.removeprefix("sha256:")
    assert proxy.cuts == 100


def test_progress_goes_up_to_the_end_and_comes_more_often_than_once_a_piece(
    api: Api, file: Path
) -> None:
    told: list[planish.Transfer] = []
    put("sync", api.url, file, told)
    sent = [t.done for t in told if t.phase == "upload"]
    assert sent == sorted(sent)
    assert len(sent) > 20
    assert sent[-1] == len(DATA)


def test_another_process_goes_on_where_one_ended(
    api: Api, file: Path, proxied, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "FIRST_PIECE", 1 << 20)
    monkeypatch.setattr(resumable, "PATIENCE_SECONDS", 0.0)
    allowed: list[int | None] = [2_500_000]
    proxy = proxied(lambda _: allowed.pop() if allowed else 1)
    with pytest.raises(ServerUnreachable):
        put("sync", proxy.url, file)
    allowed += [None] * 10
    script = (
        "import sys, planish; told = [];"
        "planish.Client(sys.argv[1], resumable_bytes=0).upload(sys.argv[2], told.append);"
        "print(min(t.done for t in told if t.phase == 'upload'))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script, proxy.url, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(found.stdout) == 1 << 20
    assert api.blobs.size(FILE_ID) == len(DATA)
    assert list((tmp_cache(file) / "planish" / "uploads").iterdir()) == []


def tmp_cache(file: Path) -> Path:
    return file.parent / "cache"


def test_an_upload_that_the_server_forgot_begins_anew(api: Api, file: Path) -> None:
    memory = remember.Memory(api.url)
    memory.note(FILE_ID, "/uploads/upload_" + "0" * 26)
    assert put("sync", api.url, file) == FILE_ID
    assert memory.recall(FILE_ID) is None


def test_a_broken_memory_only_costs_the_resuming(
    api: Api, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_cache(file)
    cache.write_text("not a folder")
    assert put("sync", api.url, file) == FILE_ID


def test_a_file_that_changes_on_the_way_is_refused(
    api: Api, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "FIRST_PIECE", 1 << 20)

    def change(transfer: planish.Transfer) -> None:
        if transfer.phase == "upload" and transfer.done == 0:
            with file.open("r+b") as opened:
                opened.seek(5 << 20)
                opened.write(b"changed")

    with planish.Client(api.url, resumable_bytes=0) as client, pytest.raises(DigestMismatch):
        client.upload(file, change)


def test_kill_9_of_the_api_costs_at_most_a_piece(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "LEAST_PIECE", 64 << 10)
    monkeypatch.setattr(resumable, "LARGEST_PIECE", 256 << 10)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(DATA)
    running = Killed(tmp_path / "data", redis_url)
    proxy = CuttingProxy(running.port, lambda _: None)
    dice = random.Random(2)
    edges = sorted(dice.randrange(len(DATA)) for _ in range(3))

    def kill(transfer: planish.Transfer) -> None:
        if transfer.phase == "upload" and edges and transfer.done >= edges[0]:
            edges.pop(0)
            proxy.port = running.restart()

    try:
        with planish.Client(proxy.url, resumable_bytes=0) as client:
            assert client.upload(path, kill).id == FILE_ID
        stored = Blobs(tmp_path / "data").path(FILE_ID)
        assert hashlib.sha256(stored.read_bytes()).hexdigest() == FILE_ID[7:]
    finally:
        proxy.close()
        running.stop()
    assert not edges


class Killed:
    """An API process that can be killed and started again on the same data."""

    def __init__(self, data: Path, redis_url: str) -> None:
        self._settings = {"PLANISH_DATA_DIR": str(data), "PLANISH_REDIS_URL": redis_url}
        self.port = self._start()

    def restart(self) -> int:
        self.stop()
        return self._start()

    def stop(self) -> None:
        self._process.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process.wait()

    def _start(self) -> int:
        command = [sys.executable, "-m", "service.main", "--port", "0"]
        environment = {**os.environ, **self._settings}
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return int(line.rsplit(":", 1)[1])
