"""deploy/nginx.conf in front of a real API: TLS, bodies and streams that nobody buffers."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import planish
from planish.store.commit import cancelled, commit
from planish.store.keys import Keys
from planish.store.settings import StoreSettings
from service.settings import ServiceSettings
from tests.conftest import ROOT, missing
from tests.service.conftest import SPEC, Api, serve

NAME = "planish.test"
FRAME = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  include {folder}/planish.conf;
}}
"""


@dataclass
class Front:
    """A Planish behind nginx."""

    api: Api
    url: str
    key: str
    port: int
    trust: ssl.SSLContext

    def client(self) -> httpx.Client:
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.trust, timeout=20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def certificate(folder: Path) -> tuple[Path, Path]:
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-out", str(cert)]
    command += ["-keyout", str(key), "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def configured(folder: Path, api_port: int, port: int) -> Path:
    """Write the sample with this test's ports, name and certificate in the place of its own."""
    cert, key = certificate(folder)
    text = (ROOT / "deploy" / "nginx.conf").read_text()
    for old, new in (
        ("127.0.0.1:8000", f"127.0.0.1:{api_port}"),
        ("listen 443", f"listen 127.0.0.1:{port}"),
        ("listen 80", f"listen 127.0.0.1:{free_port()}"),
        ("planish.example", NAME),
        ("/etc/ssl/planish/fullchain.pem", str(cert)),
        ("/etc/ssl/planish/privkey.pem", str(key)),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "planish.conf").write_text(text)
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder))
    return cert


@pytest.fixture(scope="module")
def front(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None or shutil.which("openssl") is None:
        missing("nginx and openssl are needed: apt-get install nginx-light openssl")
    folder, data = tmp_path_factory.mktemp("nginx"), tmp_path_factory.mktemp("data")
    key = Keys(data).create("test").secret
    settings = ServiceSettings(StoreSettings(data, redis_url), port=0)
    behind = dataclasses.replace(settings, hosts=frozenset({NAME}), proxies=("127.0.0.1",))
    for api in serve(behind):
        port = free_port()
        cert = configured(folder, httpx.URL(api.url).port or 0, port)
        command = [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            await_port(port, process)
            trust = ssl.create_default_context(cafile=str(cert))
            yield Front(api, f"https://{NAME}:{port}", key, port, trust)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, process.communicate()[1].decode()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("nginx does not listen")


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch, front: Front, tmp_path: Path) -> None:
    """Let the name lead to loopback, and the certificate be trusted, as an operator would."""
    lookup = socket.getaddrinfo

    def found(host: object, *args: object, **kwargs: object) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        return lookup("127.0.0.1" if name == NAME else host, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    certificates = re.findall(r"ssl_certificate +(\S+);", conf(front).read_text())
    monkeypatch.setenv("SSL_CERT_FILE", certificates[0])
    monkeypatch.setenv("PLANISH_API_KEY", front.key)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def conf(front: Front) -> Path:
    folder = front.api.root.parent
    return next(iter(sorted(folder.glob("nginx*/planish.conf"))))


def test_the_client_uploads_submits_follows_and_downloads_through_tls(
    front: Front, model: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    model += bytes(100_000)  # its own content: no job of another test reads it
    path.write_bytes(model)
    for resumable_bytes in (0, 1 << 30):
        with planish.Client(front.url, resumable_bytes=resumable_bytes) as client:
            file_id = client.upload(path).id
            with front.client() as raw:
                body = raw.get(f"/files/{file_id}", headers={"accept": "application/octet-stream"})
                part = raw.get(
                    f"/files/{file_id}",
                    headers={"accept": "application/octet-stream", "range": "bytes=5-9"},
                )
                assert body.content == model
                assert (part.status_code, part.content) == (206, model[5:10])
                assert raw.delete(f"/files/{file_id}").status_code == 204


def submitted(front: Front, model: bytes) -> str:
    with front.client() as client:
        parts = [
            ("spec", ("spec.json", json.dumps(SPEC).encode(), "application/json")),
            ("model", ("model", model, "application/octet-stream")),
        ]
        answer = client.post("/jobs", files=parts)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


def end(front: Front, job_id: str) -> None:
    """Do what cancelling a queued job does."""
    assert front.api.ledger.request_cancel(job_id) == "queued"
    commit(front.api.files, front.api.ledger, cancelled(job_id, front.api.ledger.now()))


def test_events_and_long_polls_come_as_they_happen(front: Front, model: bytes) -> None:
    job_id = submitted(front, model)
    ended: list[float] = []

    def later() -> None:
        time.sleep(1.0)
        ended.append(time.monotonic())
        end(front, job_id)

    with planish.Client(front.url) as client, front.client() as raw:
        events = client.events(job_id)
        first = next(events)
        thread = threading.Thread(target=later)
        thread.start()
        assert first.type == "job.queued"
        assert not ended  # the first event did not wait for the end of the stream
        etag = raw.get(f"/jobs/{job_id}").headers["etag"]
        held = raw.get(f"/jobs/{job_id}", headers={"prefer": "wait=20", "if-none-match": etag})
        assert held.json()["cancel_requested"]
        assert time.monotonic() - ended[0] < 2
        assert [event.type for event in events][-1] == "job.finished"
        thread.join()


def test_a_body_passes_while_it_is_sent_and_a_refusal_does_not_wait_for_its_end(
    front: Front,
) -> None:
    head = (
        f"POST /files HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {front.key}\r\n"
        "Content-Length: {}\r\n\r\n"
    )
    plain = socket.create_connection(("127.0.0.1", front.port), 10)
    with front.trust.wrap_socket(plain, server_hostname=NAME) as connection:
        connection.sendall(head.format(4 << 20).encode() + bytes(2 << 20))
        for _ in range(200):
            if sum(path.stat().st_size for path in front.api.blobs.uploads.iterdir()) > 1 << 20:
                break
            time.sleep(0.02)
        else:
            pytest.fail("nginx keeps the body to itself")
    plain = socket.create_connection(("127.0.0.1", front.port), 10)
    with front.trust.wrap_socket(plain, server_hostname=NAME) as connection:
        connection.sendall(head.format(1 << 50).encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_what_a_client_claims_about_itself_is_not_passed_on(front: Front) -> None:
    with front.client() as client:
        headers = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9"}
        assert client.post("/files", content=b"claim", headers=headers).status_code == 201
        answer = client.get("/jobs")
    assert "strict-transport-security" in answer.headers
    assert answer.headers["server"] == "nginx"  # without a version
    time.sleep(0.2)
    audit = (front.api.root / "audit.jsonl").read_text()
    assert "203.0.113.9" not in audit
    assert '"127.0.0.1"' in audit
