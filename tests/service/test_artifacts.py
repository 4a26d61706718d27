from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from http.client import HTTPConnection

import httpx
import pytest

from tests.service.conftest import ARTIFACTS, Api, problem

MODEL = ARTIFACTS["model.onnx"]
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def model_path(succeed: Callable[..., str]) -> str:
    return f"/jobs/{succeed()}/artifacts/model.onnx"


def test_a_download_is_whole_and_states_what_it_is(client: httpx.Client, model_path: str) -> None:
    answer = client.get(model_path)
    assert answer.content == MODEL
    assert answer.headers["etag"] == f'"{SHA256}"'
    digest = base64.b64encode(bytes.fromhex(SHA256)).decode()
    assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
    assert answer.headers["content-disposition"] == 'attachment; filename="model.onnx"'
    assert answer.headers["content-length"] == str(len(MODEL))


def test_head_is_get_without_the_body(client: httpx.Client, model_path: str) -> None:
    get, head = client.get(model_path), client.head(model_path)
    assert head.status_code == 200
    assert head.content == b""
    for name in ("content-length", "etag", "repr-digest", "accept-ranges"):
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-", 10000, len(MODEL)),
        ("bytes=-7", len(MODEL) - 7, len(MODEL)),
        ("bytes=5-999999999", 5, len(MODEL)),
        ("bytes=-999999999", 0, len(MODEL)),
    ],
)
def test_a_range_gives_its_bytes(
    client: httpx.Client, model_path: str, asked: str, start: int, end: int
) -> None:
    answer = client.get(model_path, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == MODEL[start:end]
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(MODEL)}"


@pytest.mark.parametrize("asked", ["bytes=10240-", "bytes=99999-100000", "bytes=-0"])
def test_a_range_outside_the_file_is_416(client: httpx.Client, model_path: str, asked: str) -> None:
    answer = client.get(model_path, headers={"range": asked})
    problem(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(MODEL)}"


@pytest.mark.parametrize(
    "asked",
    ["bytes=9-3", "lines=1-2", "bytes=a-b", "bytes=-", "bytes=0-1,5-6", "bytes=" + "9" * 5000],
)
def test_a_range_that_is_not_understood_gives_the_whole(
    client: httpx.Client, model_path: str, asked: str
) -> None:
    answer = client.get(model_path, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, MODEL)


def test_if_range_with_another_tag_gives_the_whole(client: httpx.Client, model_path: str) -> None:
    stale = client.get(model_path, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert stale.status_code == 200
    fresh = client.get(model_path, headers={"range": "bytes=0-9", "if-range": f'"{SHA256}"'})
    assert fresh.status_code == 206


def test_a_copy_that_is_current_is_not_sent_again(client: httpx.Client, model_path: str) -> None:
    answer = client.get(model_path, headers={"if-none-match": f'"{SHA256}"'})
    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../log.txt",
        "%2e%2e",
        "%2e%2e%2flog.txt",
        "..%2f..%2fSPEC.json",
        "log.txt",
        "%00",
        ".",
    ],
)
def test_only_listed_names_are_files(api: Api, succeed: Callable[..., str], name: str) -> None:
    connection = HTTPConnection(api.url.removeprefix("http://"))  # sends the path as it is
    connection.request("GET", f"/jobs/{succeed()}/artifacts/{name}")
    answer = connection.getresponse()
    assert answer.status == 404
    assert json.loads(answer.read())["code"] == "not_found"
    connection.close()


def test_the_list_names_every_artifact(client: httpx.Client, succeed: Callable[..., str]) -> None:
    job_id = succeed()
    items = client.get(f"/jobs/{job_id}/artifacts").json()["items"]
    assert {item["name"] for item in items} == set(ARTIFACTS)
    for item in items:
        content = client.get(item["href"]).content
        assert hashlib.sha256(content).hexdigest() == item["sha256"]


def test_the_model_link_leads_to_the_main_artifact(
    client: httpx.Client, succeed: Callable[..., str]
) -> None:
    job_id = succeed()
    answer = client.get(f"/jobs/{job_id}/model")
    assert answer.status_code == 307
    assert client.get(answer.headers["location"]).content == MODEL


def test_the_report_comes_as_data_or_as_a_page(
    client: httpx.Client, succeed: Callable[..., str]
) -> None:
    path = f"/jobs/{succeed()}/report"
    assert client.get(path).json() == {"made": "by hand"}
    page = client.get(path, headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-disposition"].startswith("inline")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.content == ARTIFACTS["report.html"]


@pytest.mark.parametrize("rest", ["report", "model", "artifacts", "artifacts/model.onnx"])
def test_results_before_success_are_409(
    client: httpx.Client, submit: Callable[..., str], rest: str
) -> None:
    job_id = submit()
    problem(client.get(f"/jobs/{job_id}/{rest}"), 409, "not_finished")
    client.post(f"/jobs/{job_id}/cancel")
    problem(client.get(f"/jobs/{job_id}/{rest}"), 409, "not_finished")
