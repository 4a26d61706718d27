"""Headers that every answer carries, whatever kind of answer it is, and names that are answered."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from planish.store.keys import Keys
from planish.store.settings import StoreSettings
from service.settings import ENV_HOSTS, ENV_PROXIES, InvalidSettingsError, ServiceSettings
from tests.service.conftest import LIMITS, SPEC, Api, form, problem, serve

PLAIN = "default-src 'none'; frame-ancestors 'none'"
EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}


def check(answer: httpx.Response) -> None:
    """Look at one answer's headers."""
    headers = answer.headers
    what = f"{answer.request.method} {answer.request.url} → {answer.status_code}"
    for name, value in EVERYWHERE.items():
        assert headers.get_list(name) == [value], (what, name)
    assert len(headers.get_list("x-request-id")) == 1, what
    policies = headers.get_list("content-security-policy")
    assert len(policies) == 1, what
    assert "default-src 'none'" in policies[0], what
    assert "frame-ancestors 'none'" in policies[0], what
    cache = headers.get_list("cache-control")
    assert len(cache) == 1, what
    assert "no-store" in cache[0] or "private" in cache[0] or "/docs" in str(answer.url), what
    assert "server" not in headers, what
    assert "x-powered-by" not in headers, what
    assert not [name for name in headers if name.startswith("access-control-")], what


def walked(document: dict, **values: str) -> Iterator[tuple[str, str]]:
    """Yield every operation of the document with a path that exists."""
    for path, item in document["paths"].items():
        for method in item:
            yield method.upper(), path.format(**values)


def test_every_operation_answers_with_the_security_headers(
    client: httpx.Client, succeed: Callable[..., str], model: bytes
) -> None:
    file_id = client.post("/files", content=model).json()["id"]
    begun = client.post("/uploads", headers={"tus-resumable": "1.0.0", "upload-length": "5"})
    ids = {
        "job_id": succeed(),
        "name": "model.onnx",
        "file_id": file_id,
        "upload_id": begun.headers["location"].rpartition("/")[2],
    }
    document = client.get("/openapi.json").json()
    unknown = dict.fromkeys(ids, "nothing")
    seen = set()
    for values in (ids, unknown):
        for method, path in walked(document, **values):
            if method != "DELETE" or values is unknown:
                for extra in ({}, {"tus-resumable": "1.0.0", "accept": "text/html"}):
                    answer = client.request(method, path, headers=extra)
                    check(answer)
                    seen.add(answer.status_code)
    assert {200, 204, 400, 404, 412, 415} <= seen


def test_pages_downloads_streams_and_errors_have_them_too(
    api: Api, client: httpx.Client, succeed: Callable[..., str]
) -> None:
    job = f"/jobs/{succeed()}"
    etag = client.get(f"{job}/artifacts/model.onnx").headers["etag"]
    artifact = f"{job}/artifacts/model.onnx"
    for path, headers in (
        ("/", {}),
        ("/docs", {}),
        ("/docs/start.js", {}),
        ("/docs/swagger-ui.css", {}),
        ("/docs/nothing", {}),
        (f"{job}/report", {"accept": "text/html"}),
        (f"{job}/events", {}),
        (artifact, {"range": "bytes=1-2"}),
        (artifact, {"range": "bytes=999999999-"}),
        (artifact, {"if-none-match": etag}),
        (job, {"prefer": "wait=1"}),
        ("/no/such/path", {"origin": "http://elsewhere.example"}),
        ("/jobs?limit=0", {}),
    ):
        check(client.get(path, headers=headers))
    for method in ("PUT", "TRACE", "OPTIONS"):
        check(client.request(method, "/jobs", headers={"origin": "http://elsewhere.example"}))


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost", 408),
    ],
)
def test_answers_of_the_protocol_itself_have_them(api: Api, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", httpx.URL(api.url).port or 0), 10) as connection:
        connection.sendall(sent)
        raw = b""
        while piece := connection.recv(65536):
            raw += piece
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = [line.decode().split(": ", 1) for line in head.split(b"\r\n")[1:]]
    headers = [(name, value) for name, value in lines]
    request = httpx.Request("GET", api.url)
    answer = httpx.Response(status, headers=headers, content=body, request=request)
    assert head.startswith(b"HTTP/1.1 %d" % status)
    check(answer)
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:8000", "x.localhost"]
)
def test_without_keys_loopback_names_are_answered(client: httpx.Client, host: str) -> None:
    assert client.get("/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "", "a b", "localhost:x"]
)
def test_without_keys_a_name_that_was_made_to_lead_here_is_refused(
    client: httpx.Client, submit: Callable[..., str], host: str
) -> None:
    job = f"/jobs/{submit()}"
    for method, path in (("GET", "/jobs"), ("GET", job), ("POST", "/files"), ("GET", "/docs")):
        answer = client.request(method, path, headers={"host": host})
        problem(answer, 421, "misdirected_request")
        check(answer)
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://127.0.0.1"]
)
def test_without_keys_pages_of_other_sites_change_nothing(
    api: Api, client: httpx.Client, model: bytes, origin: str
) -> None:
    before = len(client.get("/files").json()["items"])
    for answer in (
        client.post("/files", content=model + b"?", headers={"origin": origin}),
        client.post("/jobs", files=form(SPEC, model=model), headers={"origin": origin}),
        client.delete("/files/sha256:" + "0" * 64, headers={"origin": origin}),
    ):
        problem(answer, 403, "forbidden")
    assert len(client.get("/files").json()["items"]) == before
    own = client.post("/files", content=model, headers={"origin": api.url})
    assert own.status_code in (200, 201)


def with_settings(redis_url: str, folder: Path, **more: object) -> Iterator[Api]:
    store = StoreSettings(folder, redis_url)
    settings = ServiceSettings(store, port=0, limits=LIMITS)
    yield from serve(dataclasses.replace(settings, **more))


def test_with_keys_any_name_and_origin_will_do_unless_names_are_listed(
    redis_url: str, tmp_path: Path
) -> None:
    elsewhere = {"host": "planish.example", "origin": "https://other.example"}
    key = Keys(tmp_path).create("test").secret
    trusted = {"authorization": f"Bearer {key}"}
    for api in with_settings(redis_url, tmp_path):
        with api.client(**trusted) as client:
            assert client.post("/files", content=b"x", headers=elsewhere).status_code == 201
    for api in with_settings(redis_url, tmp_path, hosts=frozenset({"planish.example"})):
        with api.client(**trusted) as client:
            assert client.get("/jobs", headers=elsewhere).status_code == 200
            refused = client.get("/jobs", headers={"host": "other.example"})
            problem(refused, 421, "misdirected_request")


@pytest.mark.parametrize(
    ("proxies", "seen"), [((), "127.0.0.1"), (("127.0.0.0/8",), "203.0.113.9")]
)
def test_forwarded_addresses_are_believed_from_listed_proxies_alone(
    redis_url: str, tmp_path: Path, proxies: tuple[str, ...], seen: str
) -> None:
    for api in with_settings(redis_url, tmp_path, proxies=proxies):
        with api.client() as client:
            sent = {"x-forwarded-for": "198.51.100.1, 203.0.113.9", "x-forwarded-proto": "https"}
            assert client.post("/files", content=b"x", headers=sent).status_code == 201
    audit = (tmp_path / "audit.jsonl").read_text()
    assert f'"{seen}"' in audit


@pytest.mark.parametrize(
    ("name", "text"),
    [(ENV_HOSTS, "https://planish.example"), (ENV_PROXIES, "*"), (ENV_PROXIES, "nginx")],
)
def test_a_list_with_a_mistake_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, text: str
) -> None:
    monkeypatch.setenv("PLANISH_DATA_DIR", os.fspath(tmp_path))
    monkeypatch.setenv(name, text)
    with pytest.raises(InvalidSettingsError, match=name):
        ServiceSettings.from_env()
