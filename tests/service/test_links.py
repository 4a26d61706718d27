"""Links that need no key: for one file, for a while, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from planish.store.keys import Keys
from service.links import Links
from tests.service.conftest import ARTIFACTS, Api, problem


@pytest.fixture(scope="module")
def key(api: Api) -> str:
    return Keys(api.root).create("links").secret


@pytest.fixture
def client(api: Api, key: str) -> Iterator[httpx.Client]:
    """Whoever holds the key."""
    with api.client(authorization=f"Bearer {key}") as client:
        yield client


@pytest.fixture
def anybody(api: Api) -> Iterator[httpx.Client]:
    """Whoever holds only a link."""
    with api.client() as client:
        yield client


@pytest.fixture
def job(succeed: Callable[..., str]) -> str:
    return succeed()


def link_to(client: httpx.Client, job_id: str, name: str = "model.onnx") -> str:
    answer = client.post(f"/jobs/{job_id}/artifacts/{name}/link")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["href"])


def test_a_link_opens_its_file_without_a_key(
    client: httpx.Client, anybody: httpx.Client, job: str
) -> None:
    href = link_to(client, job)
    answer = anybody.get(href)
    assert answer.status_code == 200
    assert answer.content == ARTIFACTS["model.onnx"]
    assert answer.headers["content-disposition"].startswith("attachment")
    assert anybody.head(href).status_code == 200
    problem(anybody.get(href.partition("?")[0]), 401, "unauthorized")


@pytest.mark.parametrize(
    "change",
    [
        lambda href: href.replace("model.onnx", "report.json"),
        lambda href: href.replace("tenant=default", "tenant=other"),
        lambda href: href.replace("expires=", "expires=9"),
        lambda href: href[:-2] + ("AA" if href[-2:] != "AA" else "BB"),
        lambda href: href.replace("/artifacts/model.onnx", ""),
        lambda href: href.replace("/artifacts/model.onnx", "/events"),
        lambda href: href.partition("&signature")[0] + "&signature=",
        lambda href: href + "%ff",
    ],
    ids=["file", "tenant", "expiry", "signature", "job", "events", "nothing", "more"],
)
def test_a_changed_link_opens_nothing(
    client: httpx.Client, anybody: httpx.Client, job: str, change: Callable[[str], str]
) -> None:
    problem(anybody.get(change(link_to(client, job))), 401, "unauthorized")


def test_a_link_changes_nothing(client: httpx.Client, anybody: httpx.Client, job: str) -> None:
    href = link_to(client, job)
    problem(anybody.delete(href), 401, "unauthorized")
    problem(anybody.post(href), 401, "unauthorized")


def test_an_expired_link_opens_nothing(api: Api, anybody: httpx.Client, job: str) -> None:
    href, _ = Links(api.root).sign(f"/jobs/{job}/artifacts/model.onnx", "default", -1)
    body = problem(anybody.get(href), 401, "unauthorized")
    assert "expired" in str(body["detail"])


def test_another_tenants_link_does_not_reach_the_job(
    api: Api, anybody: httpx.Client, job: str
) -> None:
    href, _ = Links(api.root).sign(f"/jobs/{job}/artifacts/model.onnx", "other", 60)
    problem(anybody.get(href), 404, "not_found")


def test_links_are_made_for_what_is_there(client: httpx.Client, job: str) -> None:
    path = f"/jobs/{job}/artifacts"
    problem(client.post(f"{path}/nothing.onnx/link"), 404, "not_found")
    problem(client.post(f"{path}/model.onnx/link?seconds=9999999"), 400, "invalid_parameter")
