"""What a tenant may use, over real HTTP and a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from planish.store.connection import connect
from planish.store.keys import Keys
from planish.store.quota import Quotas
from planish.store.settings import StoreSettings
from service.settings import ServiceSettings
from service.shares import LocalBucket, Shares
from tests.service.conftest import SPEC, Api, form, problem, serve

SHARES = Shares(
    reads_per_minute=30, writes_per_minute=12, live_jobs=2, upload_bytes_per_day=100_000
)


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Api]:
    connect(redis_url).flushdb()
    store = StoreSettings(tmp_path_factory.mktemp("shares"), redis_url)
    yield from serve(ServiceSettings(store, port=0, shares=SHARES))


def bearer(api: Api, tenant: str) -> dict[str, str]:
    return {"authorization": f"Bearer {Keys(api.root).create('t', tenant).secret}"}


def test_writes_beyond_the_share_wait_and_other_tenants_do_not(small: Api) -> None:
    mine, other = bearer(small, "busy"), bearer(small, "quiet")
    with small.client() as client:
        answers = [client.delete("/files/none", headers=mine) for _ in range(13)]
        assert [a.status_code for a in answers[:12]] == [404] * 12
        left = [int(a.headers["ratelimit-remaining"]) for a in answers[:12]]
        assert left == sorted(left, reverse=True)
        problem(answers[12], 429, "rate_limited")
        assert 1 <= int(answers[12].headers["retry-after"]) <= 60
        assert answers[12].headers["ratelimit-remaining"] == "0"
        assert client.delete("/files/none", headers=other).status_code == 404


def test_reads_beyond_the_share_wait_on_the_fast_path_too(small: Api, model: bytes) -> None:
    mine = bearer(small, "reader")
    with small.client() as client:
        job = client.post("/jobs", files=form(SPEC, model=model), headers=mine).json()["id"]
        answers = [client.get(f"/jobs/{job}", headers=mine) for _ in range(40)]
    statuses = [a.status_code for a in answers]
    assert set(statuses) == {200, 429}
    assert statuses.index(429) >= 28


def test_more_live_jobs_than_the_share_are_refused_until_one_ends(small: Api, model: bytes) -> None:
    mine = bearer(small, "queue")
    with small.client() as client:
        jobs = [client.post("/jobs", files=form(SPEC, model=model), headers=mine) for _ in range(3)]
        assert [j.status_code for j in jobs] == [202, 202, 429]
        problem(jobs[2], 429, "quota_exceeded")
        client.post(f"/jobs/{jobs[0].json()['id']}/cancel", headers=mine)
        again = client.post("/jobs", files=form(SPEC, model=model), headers=mine)
        assert again.status_code == 202


def test_bytes_beyond_the_days_share_are_not_kept(small: Api) -> None:
    mine = bearer(small, "heavy")
    with small.client() as client:
        assert client.post("/files", content=b"a" * 60_000, headers=mine).status_code == 201
        refused = client.post("/files", content=b"b" * 60_000, headers=mine)
        problem(refused, 429, "quota_exceeded")
        assert len(client.get("/files", headers=mine).json()["items"]) == 1


def test_a_bucket_gives_exactly_its_tokens_to_many_at_once(redis_url: str) -> None:
    quotas = Quotas(connect(redis_url))
    taken: list[bool] = []

    def take() -> None:
        taken.extend(quotas.take("race", 50, 0.001).allowed for _ in range(20))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 50


def test_a_local_bucket_refills_with_time() -> None:
    bucket = LocalBucket(60, 0.0)
    assert not bucket.take().allowed
    bucket.at -= 2.0
    assert [bucket.take().allowed for _ in range(3)] == [True, True, False]


def test_open_paths_are_never_limited(small: Api) -> None:
    with httpx.Client(base_url=small.url) as client:
        assert {client.get("/healthz").status_code for _ in range(50)} == {200}
