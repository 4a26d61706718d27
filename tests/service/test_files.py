from __future__ import annotations

import base64
import hashlib
import secrets
import threading

import httpx
import numpy as np
import pytest

from planish.contract.job import FileInfo, FilePage
from tests.service.conftest import SPEC, Api, form, problem, safetensors

MISSING = "sha256:" + "0" * 64


def test_the_same_content_has_the_same_id(client: httpx.Client) -> None:
    content = secrets.token_bytes(300_000)
    first = client.post("/files", params={"name": "weights.pt"}, content=content)
    again = client.post("/files", content=content)
    assert (first.status_code, again.status_code) == (201, 200)
    info = FileInfo.model_validate(first.json())
    assert info.id == f"sha256:{hashlib.sha256(content).hexdigest()}"
    assert (info.size, info.name) == (300_000, "weights.pt")
    assert again.json() == first.json()
    assert first.headers["location"] == f"/files/{info.id}"


def test_a_body_without_length_is_taken(client: httpx.Client) -> None:
    pieces = [secrets.token_bytes(70_000) for _ in range(20)]
    answer = client.post("/files", content=iter(pieces))
    assert answer.json()["id"] == f"sha256:{hashlib.sha256(b''.join(pieces)).hexdigest()}"


def test_many_uploads_at_once_are_kept_apart(api: Api) -> None:
    contents = [secrets.token_bytes(1 << 20) for _ in range(8)]
    got: dict[int, str] = {}

    def send(number: int) -> None:
        with api.client() as client:
            got[number] = client.post("/files", content=contents[number]).json()["id"]

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == {
        n: f"sha256:{hashlib.sha256(content).hexdigest()}" for n, content in enumerate(contents)
    }
    assert api.leftovers() == []


def test_a_file_is_shown_or_sent_by_accept(client: httpx.Client) -> None:
    content = secrets.token_bytes(1000)
    path = client.post("/files", params={"name": "mein modell.pt"}, content=content).headers[
        "location"
    ]
    assert client.get(path).json()["size"] == 1000
    sent = client.get(path, headers={"accept": "application/octet-stream", "range": "bytes=10-19"})
    assert (sent.status_code, sent.content) == (206, content[10:20])
    assert sent.headers["content-disposition"] == 'attachment; filename="mein modell.pt"'
    head = client.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("header", ["repr-digest", "content-digest", "x-content-sha256"])
def test_stated_digests_are_checked(client: httpx.Client, api: Api, header: str) -> None:
    content = secrets.token_bytes(5000)

    def stated(data: bytes) -> dict[str, str]:
        raw = hashlib.sha256(data).digest()
        if header == "x-content-sha256":
            return {header: raw.hex()}
        return {header: f"sha-512=:AAAA:, sha-256=:{base64.b64encode(raw).decode()}:"}

    wrong = client.post("/files", content=content, headers=stated(b"other"))
    problem(wrong, 422, "digest_mismatch")
    assert api.leftovers() == []
    sha256 = hashlib.sha256(content).hexdigest()
    problem(client.get(f"/files/sha256:{sha256}"), 404, "not_found")
    assert client.post("/files", content=content, headers=stated(content)).status_code == 201


@pytest.mark.parametrize(
    "header",
    [
        {"repr-digest": "sha-256=abc"},
        {"repr-digest": "sha-256=:AAAA:"},
        {"content-digest": "nonsense"},
        {"x-content-sha256": "12"},
    ],
)
def test_a_malformed_digest_is_refused(client: httpx.Client, header: dict[str, str]) -> None:
    problem(client.post("/files", content=b"x", headers=header), 400, "invalid_parameter")


def test_empty_and_encoded_bodies_are_refused(client: httpx.Client, api: Api) -> None:
    problem(client.post("/files", content=b""), 422, "missing_part")
    encoded = client.post("/files", content=b"x", headers={"content-encoding": "gzip"})
    problem(encoded, 415, "unsupported_media_type")
    assert api.leftovers() == []


def test_files_are_listed_newest_first(client: httpx.Client) -> None:
    made = [client.post("/files", content=secrets.token_bytes(10)).json()["id"] for _ in range(3)]
    page = FilePage.model_validate(client.get("/files", params={"limit": 2}).json())
    assert [info.id for info in page.items] == made[:0:-1]
    rest = client.get("/files", params={"limit": 1, "after": page.next or ""}).json()
    assert rest["items"][0]["id"] == made[0]
    problem(client.get("/files?after=x"), 400, "invalid_parameter")


def test_a_file_of_a_live_job_stays(client: httpx.Client) -> None:
    weights = np.frombuffer(secrets.token_bytes(64), np.uint8).astype(np.float32)
    model = safetensors({"conv.weight": weights})  # no other job has it
    path = f"/files/sha256:{hashlib.sha256(model).hexdigest()}"
    job_id = client.post("/jobs", files=form(SPEC, model=model)).json()["id"]
    problem(client.delete(path), 409, "file_in_use")
    client.post(f"/jobs/{job_id}/cancel")
    assert client.get(f"/jobs/{job_id}").json()["terminal"]
    assert client.delete(path).status_code == 204
    problem(client.get(path), 404, "not_found")


@pytest.mark.parametrize("file_id", [MISSING, "x", "sha256:..", "%2e%2e", "sha256:" + "G" * 64])
def test_unknown_files_are_404(client: httpx.Client, file_id: str) -> None:
    problem(client.get(f"/files/{file_id}"), 404, "not_found")
    problem(client.delete(f"/files/{file_id}"), 404, "not_found")
    assert client.head(f"/files/{file_id}").status_code == 404
