"""Redis away: nothing that was accepted is lost, and every answer says what is the matter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from planish.contract.errors import Unavailable
from planish.contract.guards import NEEDED, Guard
from planish.contract.wire import JOB_QUEUE
from planish.store.embedded import EmbeddedRedis
from planish.store.settings import StoreSettings
from service.settings import ServiceSettings
from tests.conftest import missing
from tests.service.conftest import SPEC, Api, form, problem, serve


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[EmbeddedRedis, str]]:
    """A Redis that a test may stop."""
    server = EmbeddedRedis(tmp_path)
    try:
        url = server.start()
    except Unavailable as error:
        missing(error.detail)
    yield server, url
    server.stop()


@pytest.fixture
def api(server: tuple[EmbeddedRedis, str], tmp_path: Path) -> Iterator[Api]:
    store = StoreSettings(tmp_path / "data", server[1])
    store.data_dir.mkdir()
    yield from serve(ServiceSettings(store, port=0))


def test_jobs_are_accepted_while_redis_is_away(
    api: Api, server: tuple[EmbeddedRedis, str], model: bytes
) -> None:
    with api.client() as client:
        before = client.post("/jobs", files=form(SPEC, model=model)).json()["id"]
        server[0].stop()
        answer = client.post("/jobs", files=form(SPEC, model=model))
        assert answer.status_code == 202, answer.text
        assert answer.json()["status"] == "queued"
        assert api.files.spec(answer.json()["id"]) is not None
        for path in (
            f"/jobs/{before}",
            "/jobs",
            f"/jobs/{before}/events",
            f"/jobs/{before}/report",
        ):
            problem(client.get(path), 503, "unavailable")
        problem(client.post(f"/jobs/{before}/cancel"), 503, "unavailable")
        body = problem(client.get("/readyz"), 503, "unavailable")
        assert "Redis" in str(body["detail"])
        assert client.get("/healthz").status_code == 200
        assert client.get("/metrics").status_code == 200
        server[0].start()
        assert client.get(f"/jobs/{before}").status_code == 200
        late = client.get(answer.headers["location"])
        assert late.json()["id"] == answer.json()["id"]


def test_readiness_names_what_is_missing(api: Api) -> None:
    with api.client() as client:
        body = problem(client.get("/readyz"), 503, "unavailable")
        assert body["errors"] == [{"pointer": "/workers", "detail": "no worker is connected"}]
        api.ledger.register_worker("w", 0, ("planish.jobs",), 5)
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["workers"], ready["guarded"]) == ("ready", 1, False)
        api.ledger.register_worker("w", 0, ("planish.jobs",), 0.001)


def test_readiness_tells_the_guards_of_the_weakest_worker(api: Api) -> None:
    guarded = tuple(Guard(name=name, given=True, detail="there") for name in NEEDED)
    bare = tuple(Guard(name=name, given=False, detail="an old kernel") for name in NEEDED)
    with api.client() as client:
        api.ledger.register_worker("strong", 0, (JOB_QUEUE,), 5, guarded)
        ready = client.get("/readyz").json()
        assert ready["guarded"]
        assert [guard["name"] for guard in ready["guards"]] == list(NEEDED)
        api.ledger.register_worker("weak", 0, (JOB_QUEUE,), 5, bare)
        ready = client.get("/readyz").json()
        assert (ready["status"], ready["workers"], ready["guarded"]) == ("ready", 2, False)
        assert {guard["detail"] for guard in ready["guards"]} == {"an old kernel"}
