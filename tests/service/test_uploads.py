"""Resumable uploads over real HTTP, as tus 1.0 clients speak."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from planish.store.resumable import Resumable
from tests.service.conftest import Api, problem

TUS = {"tus-resumable": "1.0.0"}
OFFSET = "application/offset+octet-stream"


def begin(client: httpx.Client, length: int, **headers: str) -> str:
    answer = client.post("/uploads", headers={**TUS, "upload-length": str(length), **headers})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def send(client: httpx.Client, path: str, offset: int, data: bytes, **headers: str):
    more = {"upload-offset": str(offset), "content-type": OFFSET, **headers}
    return client.patch(path, content=data, headers={**TUS, **more})


def offset_of(client: httpx.Client, path: str) -> int:
    answer = client.head(path, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def test_options_name_version_extensions_and_limit(client: httpx.Client) -> None:
    answer = client.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert set(answer.headers["tus-extension"].split(",")) >= {
        "creation",
        "expiration",
        "termination",
        "checksum",
    }
    assert int(answer.headers["tus-max-size"]) == 32 << 20


def test_a_file_in_three_pieces_becomes_a_file_of_the_store(client: httpx.Client) -> None:
    data = os.urandom(300_000)
    name = base64.b64encode("grüße.pt2".encode()).decode()
    path = begin(client, len(data), **{"upload-metadata": f"filename {name},kind bW9kZWw="})
    for start in (0, 100_000, 200_000):
        assert offset_of(client, path) == start
        answer = send(client, path, start, data[start : start + 100_000])
        assert answer.status_code == 204
        assert answer.headers["upload-offset"] == str(start + 100_000)
        assert "upload-expires" in answer.headers
    file_id = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert answer.headers["upload-file-id"] == file_id
    assert client.head(path, headers=TUS).headers["upload-file-id"] == file_id
    assert client.get(f"/files/{file_id}").json()["name"] == "grüße.pt2"
    bytes_only = {"accept": "application/octet-stream"}
    assert client.get(f"/files/{file_id}", headers=bytes_only).content == data


def test_an_upload_cut_100_times_at_random_places_arrives_whole(
    api: Api, client: httpx.Client
) -> None:
    data, dice = os.urandom(2 << 20), random.Random(7)
    path = begin(client, len(data))
    cuts = 0
    while (offset := offset_of(client, path)) < len(data):
        if cuts < 100:
            _cut(api, path, offset, data[offset:], dice.randint(1, len(data) // 60))
            cuts += 1
        else:
            answer = send(client, path, offset, data[offset:])
            assert answer.status_code in (204, 423)
    found = client.head(path, headers=TUS).headers["upload-file-id"]
    assert cuts == 100
    assert found == f"sha256:{hashlib.sha256(data).hexdigest()}"


def _cut(api: Api, path: str, offset: int, rest: bytes, after: int) -> None:
    """Send some bytes of a body that promises more, and break the connection."""
    host, port = api.url.removeprefix("http://").split(":")
    head = (
        f"PATCH {path} HTTP/1.1\r\nhost: {host}\r\ntus-resumable: 1.0.0\r\n"
        f"content-type: {OFFSET}\r\nupload-offset: {offset}\r\ncontent-length: {len(rest)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head.encode() + rest[:after])
    for _ in range(200):  # until the server has noticed and let go of the file
        resumable = Resumable(api.blobs)
        try:
            with resumable.writing(path.rpartition("/")[2]):
                return
        except Exception:
            time.sleep(0.01)


def test_a_wrong_offset_is_a_conflict_that_names_the_right_one(client: httpx.Client) -> None:
    path = begin(client, 10)
    send(client, path, 0, b"12345")
    body = problem(send(client, path, 3, b"45678"), 409, "offset_mismatch")
    assert "5 bytes have arrived" in str(body["detail"])
    assert offset_of(client, path) == 5


def test_bytes_with_a_checksum_count_only_when_they_match(client: httpx.Client) -> None:
    path = begin(client, 10)
    right = base64.b64encode(hashlib.sha1(b"12345").digest()).decode()
    bad = send(client, path, 0, b"1234X", **{"upload-checksum": f"sha1 {right}"})
    problem(bad, 460, "checksum_mismatch")
    assert offset_of(client, path) == 0
    assert (
        send(client, path, 0, b"12345", **{"upload-checksum": f"sha1 {right}"}).status_code == 204
    )
    unknown = send(client, path, 5, b"67890", **{"upload-checksum": "crc32 AAAA"})
    problem(unknown, 400, "invalid_parameter")


def test_a_cut_connection_leaves_nothing_of_a_checksummed_piece(
    api: Api, client: httpx.Client
) -> None:
    data = os.urandom(1 << 16)
    path = begin(client, len(data))
    host, port = api.url.removeprefix("http://").split(":")
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    head = (
        f"PATCH {path} HTTP/1.1\r\nhost: {host}\r\ntus-resumable: 1.0.0\r\n"
        f"content-type: {OFFSET}\r\nupload-offset: 0\r\nupload-checksum: sha256 {digest}\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(head.encode() + data[:5000])
        time.sleep(0.3)
    time.sleep(0.5)
    assert offset_of(client, path) == 0


def test_more_bytes_than_announced_are_refused(client: httpx.Client) -> None:
    path = begin(client, 4)
    problem(send(client, path, 0, b"123456"), 413, "too_large")


def test_two_writers_at_once_are_told_apart(api: Api, client: httpx.Client) -> None:
    path = begin(client, 10)
    with Resumable(api.blobs).writing(path.rpartition("/")[2]):
        problem(send(client, path, 0, b"1"), 423, "upload_locked")
    assert send(client, path, 0, b"1").status_code == 204


def test_a_terminated_upload_is_gone_and_leaves_no_bytes(api: Api, client: httpx.Client) -> None:
    path = begin(client, 10)
    send(client, path, 0, b"12345")
    assert client.delete(path, headers=TUS).status_code == 204
    assert client.head(path, headers=TUS).status_code == 404
    problem(send(client, path, 5, b"67890"), 404, "not_found")
    assert list((api.root / "uploads").glob(f"{path.rpartition('/')[2]}*")) == []


def test_an_expired_upload_is_gone_and_swept(api: Api, client: httpx.Client) -> None:
    path = begin(client, 10)
    (note,) = (api.root / "uploads").glob(f"{path.rpartition('/')[2]}.note")
    past = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    note.write_text(json.dumps({**json.loads(note.read_text()), "expires_at": past}))
    problem(send(client, path, 0, b"12345"), 410, "upload_expired")
    assert note in set(Resumable(api.blobs).expired())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 412, "unsupported_tus_version"),
        ({**TUS, "tus-resumable": "0.2.2", "upload-length": "5"}, 412, "unsupported_tus_version"),
        (TUS, 400, "invalid_parameter"),
        ({**TUS, "upload-length": "-1"}, 400, "invalid_parameter"),
        ({**TUS, "upload-length": "0"}, 400, "invalid_parameter"),
        ({**TUS, "upload-length": "9" * 40}, 400, "invalid_parameter"),
        ({**TUS, "upload-length": str(33 << 20)}, 413, "too_large"),
        (
            {**TUS, "upload-length": "5", "upload-metadata": "filename ***"},
            400,
            "invalid_parameter",
        ),
    ],
)
def test_bad_creations_are_refused(
    client: httpx.Client, headers: dict[str, str], status: int, code: str
) -> None:
    problem(client.post("/uploads", headers=headers), status, code)


@pytest.mark.parametrize("upload_id", ["x", "../../etc", "upload_" + "0" * 26])
def test_ids_of_nothing_are_not_found(client: httpx.Client, upload_id: str) -> None:
    assert client.head(f"/uploads/{upload_id}", headers=TUS).status_code == 404


def test_a_plain_body_type_is_refused(client: httpx.Client) -> None:
    path = begin(client, 4)
    answer = send(client, path, 0, b"1234", **{"content-type": "application/octet-stream"})
    problem(answer, 415, "unsupported_media_type")


def test_a_whole_upload_can_be_named_in_a_job(
    client: httpx.Client, model: bytes, submit: Callable[..., str]
) -> None:
    path = begin(client, len(model))
    file_id = send(client, path, 0, model).headers["upload-file-id"]
    from tests.service.conftest import SPEC

    answer = client.post("/jobs", json={**SPEC, "files": {"model": file_id}})
    assert answer.status_code == 202


def test_many_uploads_at_once_stay_apart(api: Api) -> None:
    def one(seed: int) -> None:
        data = random.Random(seed).randbytes(400_000)
        with api.client() as client:
            path = begin(client, len(data))
            for start in range(0, len(data), 50_000):
                send(client, path, start, data[start : start + 50_000])
            found.append(
                client.head(path, headers=TUS).headers["upload-file-id"]
                == f"sha256:{hashlib.sha256(data).hexdigest()}"
            )

    found: list[bool] = []
    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 6
