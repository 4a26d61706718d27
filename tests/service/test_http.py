"""What holds for every request: problems, headers, keys, limits of a connection."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from planish.store.settings import StoreSettings
from service.settings import InvalidSettingsError, ServiceSettings
from tests.service.conftest import Api, problem, serve

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def locked(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """An API that needs a key."""
    store = StoreSettings(tmp_path_factory.mktemp("locked"), redis_url)
    yield from serve(ServiceSettings(store, port=0, api_key=KEY))


def connect(api: Api) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(api.url.rsplit(":", 1)[1])), timeout=10)


def answer_to(api: Api, sent: bytes) -> bytes:
    """Everything that comes back until the server closes."""
    with connect(api) as connection:
        connection.sendall(sent)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    try:
        while piece := connection.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def test_an_unknown_path_is_a_problem(client: httpx.Client) -> None:
    problem(client.get("/nothing/here"), 404, "not_found")
    problem(client.get("/jobs/"), 404, "not_found")


def test_a_wrong_method_is_a_problem_that_names_the_right_ones(client: httpx.Client) -> None:
    answer = client.put("/jobs")
    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    files = client.patch("/files/sha256:" + "0" * 64)
    assert files.headers["allow"] == "DELETE, GET, HEAD"


def test_every_answer_carries_id_and_security_headers(client: httpx.Client) -> None:
    for path in ("/healthz", "/jobs", "/docs", "/nothing", "/jobs/job_1"):
        answer = client.get(path)
        assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "cache-control" in answer.headers
        assert "server" not in answer.headers


def test_a_decent_request_id_of_the_client_is_used(client: httpx.Client) -> None:
    answer = client.get("/nothing", headers={"x-request-id": "trace:42"})
    assert problem(answer, 404, "not_found")["request_id"] == "trace:42"
    bad = client.get("/healthz", headers={"x-request-id": "a b\tc"})
    assert bad.headers["x-request-id"] != "a b\tc"


def test_the_root_leads_to_the_docs(client: httpx.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


def test_the_docs_need_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(link.startswith(("/docs/", "data:")) for link in links)
    for link in links:
        if link.startswith("/"):
            assert client.get(link).status_code == 200
    assert "<script>" not in page
    assert client.get("/docs/../openapi.py").status_code == 404


def test_a_key_opens_the_api(locked: Api) -> None:
    with locked.client() as client:
        for path in ("/jobs", "/files", "/passes", "/metrics", "/jobs/job_" + "0" * 26):
            answer = client.get(path)
            problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/docs", "/openapi.json", "/docs/start.js"):
            assert client.get(path).status_code == 200
    for scheme in ("Bearer", "bearer"):
        with locked.client(Authorization=f"{scheme} {KEY}") as client:
            assert client.get("/jobs").status_code == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY]
)
def test_other_credentials_stay_outside(locked: Api, value: str) -> None:
    with locked.client(Authorization=value) as client:
        problem(client.get("/jobs"), 401, "unauthorized")
        problem(client.post("/files", content=b"x" * 1000), 401, "unauthorized")


def test_a_key_is_needed_on_other_addresses(tmp_path: Path) -> None:
    store = StoreSettings(tmp_path, "redis://127.0.0.1")
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(InvalidSettingsError, match="PLANISH_API_KEY"):
            ServiceSettings(store, host=host)
        ServiceSettings(store, host=host, api_key=KEY)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.8.8"):
        ServiceSettings(store, host=host)
    with pytest.raises(InvalidSettingsError):
        ServiceSettings(store, api_key="short")


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANISH_PORT", "8123")
    monkeypatch.setenv("PLANISH_MAX_UPLOADS", "3")
    assert ServiceSettings.from_env().port == 8123
    assert ServiceSettings.from_env(port=9).port == 9
    assert ServiceSettings.from_env().max_uploads == 3
    monkeypatch.setenv("PLANISH_MAX_UPLOADS", "many")
    with pytest.raises(InvalidSettingsError, match="PLANISH_MAX_UPLOADS"):
        ServiceSettings.from_env()


def test_bytes_that_are_not_http_get_a_problem(api: Api) -> None:
    head, _, content = answer_to(api, b"\x16\x03\x01 hello\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(content)["code"] == "malformed_request"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 8_000,
        b"GET /" + b"y" * 40_000 + b" HTTP/1.1\r\n\r\n",
    ],
    ids=["one field", "many fields", "target"],
)
def test_a_large_head_is_431(api: Api, head: bytes) -> None:
    assert answer_to(api, head).startswith(b"HTTP/1.1 431 ")


def test_a_head_that_drips_is_cut_off(api: Api) -> None:
    with connect(api) as connection:
        started = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")
        assert 0.9 < time.monotonic() - started < 5


def test_a_body_that_drips_is_cut_off(api: Api) -> None:
    with connect(api) as connection:
        head = b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
        connection.sendall(head + b"1")
        assert read_all(connection).startswith(b"HTTP/1.1 408 ")
    assert api.leftovers() == []


def test_many_connections_of_one_address_are_too_many(api: Api) -> None:
    connections = [connect(api) for _ in range(80)]
    time.sleep(0.2)
    alive = 0
    for connection in connections:
        connection.settimeout(0.01)
        try:
            alive += connection.recv(1) != b""
        except TimeoutError:
            alive += 1
        except ConnectionResetError:
            pass
    for connection in connections:
        connection.close()
    assert 50 <= alive <= 64
    time.sleep(0.2)
    assert httpx.get(f"{api.url}/healthz").status_code == 200


def test_requests_in_a_row_on_one_connection_are_answered_in_order(api: Api) -> None:
    one = b"POST /files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    received = answer_to(api, one + b"abc" + one + b"abd" + last)
    assert received.count(b"HTTP/1.1 20") == 3
    assert received.endswith(b'{"status":"ok"}')


def test_metrics_count_requests_by_route(client: httpx.Client) -> None:
    client.get("/jobs/job_" + "0" * 26)
    client.request("BREW", "/jobs")
    text = client.get("/metrics").text
    assert 'planish_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"}' in text
    assert "BREW" not in text
    assert 'planish_jobs{status="queued"}' in text
    assert 'planish_queue_length{queue="planish.jobs"}' in text
