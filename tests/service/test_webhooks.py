"""Messages about finished jobs: to receivers on loopback, never to where they may not go."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from planish.store.connection import connect
from planish.store.outbox import RETRY_SECONDS, Outbox
from planish.store.settings import StoreSettings
from planish.store.signing import signing_secret
from service.settings import ServiceSettings
from service.webhooks.guard import Reach, Unreachable, check_url, destination, is_public
from tests.service.conftest import SPEC, Api, form, problem, serve


class Receiver:
    """A server that remembers what it was sent and answers as told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://localhost:{self.server.server_port}/hook?x=1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, count: int) -> None:
        for _ in range(200):
            if len(self.got) >= count:
                return
            time.sleep(0.05)
        raise AssertionError(f"{len(self.got)} of {count} messages came")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def open_api(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Api]:
    store = StoreSettings(tmp_path_factory.mktemp("webhooks"), redis_url)
    yield from serve(ServiceSettings(store, port=0, webhooks=Reach.ANY))


def finish(api: Api, model: bytes, url: str) -> str:
    """Submit a job with a webhook and cancel it; return its id."""
    with api.client() as client:
        answer = client.post("/jobs", files=form({**SPEC, "webhook": {"url": url}}, model=model))
        assert answer.status_code == 202, answer.text
        job_id = answer.json()["id"]
        assert client.post(f"/jobs/{job_id}/cancel").status_code == 202
    return str(job_id)


def deliveries(api: Api, job_id: str, count: int) -> list[dict[str, object]]:
    with api.client() as client:
        for _ in range(200):
            items = client.get(f"/jobs/{job_id}/deliveries").json()["items"]
            if len(items) >= count:
                return list(items)
            time.sleep(0.05)
    raise AssertionError(f"{len(items)} of {count} tries")


def test_a_finished_job_sends_one_signed_message_without_its_spec(
    open_api: Api, model: bytes, receiver: Receiver
) -> None:
    job_id = finish(open_api, model, receiver.url)
    receiver.wait(1)
    headers, body = receiver.got[0]
    message = json.loads(body)
    assert message["type"] == "job.finished"
    assert (message["data"]["id"], message["data"]["status"]) == (job_id, "cancelled")
    assert "spec" not in message["data"]
    secret = signing_secret(open_api.root, "default")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    want = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert headers["webhook-signature"] == f"v1,{want}"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    (tried,) = deliveries(open_api, job_id, 1)
    assert (tried["delivered"], tried["status"]) == (True, 200)


def test_a_failed_message_is_tried_again_under_the_same_id(
    open_api: Api, model: bytes, receiver: Receiver, redis_url: str
) -> None:
    receiver.answers = [500]
    job_id = finish(open_api, model, receiver.url)
    (first,) = deliveries(open_api, job_id, 1)
    assert (first["delivered"], first["status"]) == (False, 500)
    Outbox(connect(redis_url), open_api.files).put(job_id)
    receiver.wait(2)
    assert receiver.got[0][0]["webhook-id"] == receiver.got[1][0]["webhook-id"]
    assert [t["delivered"] for t in deliveries(open_api, job_id, 2)] == [False, True]


def test_a_redirect_is_not_followed(open_api: Api, model: bytes, receiver: Receiver) -> None:
    receiver.answers = [302]
    job_id = finish(open_api, model, receiver.url)
    (tried,) = deliveries(open_api, job_id, 1)
    assert (tried["delivered"], tried["status"]) == (False, 302)


def test_a_message_can_be_asked_for_again(open_api: Api, model: bytes, receiver: Receiver) -> None:
    job_id = finish(open_api, model, receiver.url)
    deliveries(open_api, job_id, 1)
    with open_api.client() as client:
        assert client.post(f"/jobs/{job_id}/deliveries").status_code == 202
    receiver.wait(2)


def test_after_the_last_retry_a_message_is_given_up(
    open_api: Api, model: bytes, redis_url: str
) -> None:
    job_id = finish(open_api, model, "http://127.0.0.1:9/closed")
    outbox = Outbox(connect(redis_url), open_api.files)
    for count in range(1, len(RETRY_SECONDS) + 1):
        deliveries(open_api, job_id, count)
        outbox.put(job_id)
    deliveries(open_api, job_id, len(RETRY_SECONDS) + 1)
    time.sleep(0.2)
    assert connect(redis_url).zscore("planish:webhooks", job_id) is None


def test_webhooks_are_off_unless_the_operator_says_otherwise(
    client: httpx.Client, model: bytes
) -> None:
    spec = {**SPEC, "webhook": {"url": "https://example.com/hook"}}
    body = problem(client.post("/jobs", files=form(spec, model=model)), 422, "invalid_spec")
    assert "switched webhooks off" in str(body["detail"])


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://user:secret@example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        "https://100.64.0.1/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://example.com:8443/",
        "https://",
        "ftp://example.com/",
        "https://example.com:notaport/",
        "file:///etc/passwd",
    ],
)
def test_addresses_of_the_operators_network_are_refused_at_submit(url: str) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        check_url(url, Reach.PUBLIC)
    assert getattr(caught.value, "code", "") == "invalid_spec"


def test_a_public_name_that_leads_inside_is_refused_when_it_is_resolved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    both = [(2, 1, 6, "", ("93.184.216.34", 443)), (2, 1, 6, "", ("10.0.0.5", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    check_url("https://rebind.example/", Reach.PUBLIC)
    with pytest.raises(Unreachable, match=r"leads to 10\.0\.0\.5"):
        destination("https://rebind.example/", Reach.PUBLIC)


def test_the_connection_goes_to_the_checked_address_under_the_names_certificate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    public = [(2, 1, 6, "", ("93.184.216.34", 443))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: public)
    to = destination("https://hooks.example/a?b=c", Reach.PUBLIC)
    assert to.url == "https://93.184.216.34:443/a?b=c"
    assert (to.host, to.name) == ("hooks.example", "hooks.example")


@pytest.mark.parametrize(
    ("text", "public"),
    [("8.8.8.8", True), ("2606:4700::1111", True), ("192.168.1.1", False), ("fe80::1", False)],
)
def test_public_addresses_are_told_from_others(text: str, public: bool) -> None:
    assert is_public(ipaddress.ip_address(text)) is public


def test_every_tenant_has_a_secret_of_its_own(open_api: Api) -> None:
    secrets = {signing_secret(open_api.root, tenant) for tenant in ("a", "b")}
    assert len(secrets) == 2
    assert signing_secret(open_api.root, "a") in secrets


def test_an_unfinished_job_delivers_nothing(
    open_api: Api, model: bytes, receiver: Receiver
) -> None:
    with open_api.client() as client:
        spec = {**SPEC, "webhook": {"url": receiver.url}}
        job_id = client.post("/jobs", files=form(spec, model=model)).json()["id"]
        problem(client.post(f"/jobs/{job_id}/deliveries"), 409, "not_finished")
        plain = client.post("/jobs", files=form(SPEC, model=model)).json()["id"]
        problem(client.post(f"/jobs/{plain}/deliveries"), 404, "not_found")
    assert receiver.got == []
