"""Files from a storage: real S3 protocol against moto's server, and storages that misbehave."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import planish
from planish.contract.errors import InvalidSpec
from planish.contract.spec import Spec
from planish.contract.storage import Place, put_ids, storage_url, take_urls
from planish.launch.apps import environment
from planish.store.keys import Keys
from planish.store.settings import StoreSettings
from service import storage
from service.settings import ENV_STORAGE, InvalidSettingsError, ServiceSettings
from tests.client.fault_server import Answer, FaultServer
from tests.conftest import missing
from tests.service.conftest import LIMITS, SPEC, Api, problem, safetensors, serve

try:
    import boto3
    from moto.server import ThreadedMotoServer
except ImportError:
    boto3 = None

SECRET = "nobody-may-see-this-secret-key"
KEY_ID = "AKIANOBODYMAYSEEIT00"
PREFIXES = ("s3://models/{tenant}/", "s3://public/nets/")
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    if boto3 is None:
        missing("moto[s3,server] and boto3 are needed")
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch, moto: str) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", moto),
    ):
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3(moto: str, credentials: None) -> Any:
    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    for bucket in ("models", "public", "private"):
        client.create_bucket(Bucket=bucket)
    return client


@pytest.fixture
def open_api(redis_url: str, tmp_path: Path, credentials: None) -> Iterator[Api]:
    yield from started(redis_url, tmp_path)


def started(redis_url: str, folder: Path, **more: object) -> Iterator[Api]:
    settings = ServiceSettings(
        StoreSettings(folder, redis_url),
        port=0,
        limits=LIMITS,
        max_upload_bytes=4 << 20,
        storage=PREFIXES,
    )
    yield from serve(dataclasses.replace(settings, **more))


def submit(client: httpx.Client, **files: object) -> httpx.Response:
    return client.post("/jobs", content=json.dumps({**SPEC, "files": files}), headers=JSON)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_job_takes_its_model_from_an_allowed_bucket(s3: Any, open_api: Api, model: bytes) -> None:
    s3.put_object(Bucket="public", Key="nets/a/model.safetensors", Body=model)
    with open_api.client() as client:
        url = {"url": "s3://public/nets/a/model.safetensors", "sha256": sha256(model)}
        for _ in range(2):
            answer = submit(client, model=url)
            assert answer.status_code == 202, answer.text
        file_id = f"sha256:{sha256(model)}"
        assert answer.json()["spec"]["files"]["model"] == file_id
        info = client.get(f"/files/{file_id}").json()
        assert (info["size"], info["name"]) == (len(model), "model.safetensors")
        assert len(client.get("/files").json()["items"]) == 1


def test_client_and_cli_name_urls_like_files(s3: Any, open_api: Api, model: bytes) -> None:
    s3.put_object(Bucket="public", Key="nets/model.safetensors", Body=model)
    url, file_id = "s3://public/nets/model.safetensors", f"sha256:{sha256(model)}"
    with planish.Client(open_api.url) as client:
        assert client.upload(url).id == file_id
        spec = Spec.model_validate(SPEC)
        assert client.submit(spec, planish.Sources(url)).document.spec.files.model == file_id
    command = [sys.executable, "-m", "planish.cli", "files", "upload", url, "--url", open_api.url]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == file_id


def test_several_files_of_a_role_may_be_urls_and_ids(s3: Any, open_api: Api, model: bytes) -> None:
    first, second = ({"a.weight": 1}, {"b.weight": 2})
    parts = [safetensors_of(names) for names in (first, second)]
    index = {
        "metadata": {},
        "weight_map": {"a.weight": "m-1.safetensors", "b.weight": "m-2.safetensors"},
    }
    s3.put_object(Bucket="public", Key="nets/m-1.safetensors", Body=parts[0])
    with open_api.client() as client:
        ids = [
            client.post("/files", content=c).json()["id"]
            for c in (parts[1], json.dumps(index).encode())
        ]
        answer = submit(
            client,
            model=[
                {"id": ids[0], "name": "m-2.safetensors"},
                {"url": "s3://public/nets/m-1.safetensors", "name": "m-1.safetensors"},
                {"id": ids[1], "name": "model.safetensors.index.json"},
            ],
        )
        assert answer.status_code == 202, answer.text
        named = {item["name"]: item["id"] for item in answer.json()["spec"]["files"]["model"]}
        assert named["m-1.safetensors"] == f"sha256:{sha256(parts[0])}"


def safetensors_of(names: dict[str, int]) -> bytes:
    import numpy as np

    return safetensors({name: np.full((2, 2), value, np.float32) for name, value in names.items()})


def test_the_gate_looks_at_what_comes_from_a_storage(s3: Any, open_api: Api) -> None:
    s3.put_object(Bucket="public", Key="nets/evil", Body=b"\x80\x04cos\nsystem\n.")
    with open_api.client() as client:
        answer = submit(client, model={"url": "s3://public/nets/evil"})
    assert answer.status_code == 422
    assert answer.json()["code"] in ("unknown_model_format", "unsafe_model", "invalid_model")


def test_what_is_wrong_is_said_with_a_stable_code_and_nothing_stays(
    s3: Any, open_api: Api, model: bytes
) -> None:
    s3.put_object(Bucket="public", Key="nets/model", Body=model)
    s3.put_object(Bucket="public", Key="nets/empty", Body=b"")
    s3.put_object(Bucket="public", Key="nets/large", Body=bytes((4 << 20) + 1))
    s3.put_object(Bucket="private", Key="model", Body=model)
    cases = (
        ({"url": "s3://private/model"}, 422, "storage_url_not_allowed"),
        ({"url": "s3://models/somebody/model"}, 422, "storage_url_not_allowed"),
        ({"url": "s3://public/nets/absent"}, 422, "storage_unreadable"),
        ({"url": "s3://public/nets/empty"}, 422, "storage_unreadable"),
        ({"url": "s3://public/nets/large"}, 413, "too_large"),
        ({"url": "s3://public/nets/model", "sha256": "0" * 64}, 422, "digest_mismatch"),
        ({"url": "s3://public/nets/../../private/model"}, 422, "invalid_spec"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, 422, "invalid_spec"),
        ({"url": "file:///etc/passwd"}, 422, "invalid_spec"),
        ({"url": "s3://public/nets/model", "endpoint": "http://evil"}, 422, "invalid_spec"),
        ({"url": "s3://public/nets/model?versionId=1"}, 422, "invalid_spec"),
    )
    with open_api.client() as client:
        for source, status, code in cases:
            problem(submit(client, model=source), status, code)
            if set(source) == {"url"}:
                problem(client.post("/files", params=source), status, code)
        assert client.get("/files").json()["items"] == []
        both = client.post("/files", params={"url": "s3://public/nets/model"}, content=b"body")
        problem(both, 413, "too_large")
    assert open_api.leftovers() == []


def test_without_a_list_nothing_is_fetched(client: httpx.Client) -> None:
    source = {"url": "s3://public/nets/model"}
    problem(submit(client, model=source), 422, "storage_url_not_allowed")
    problem(client.post("/files", params=source), 422, "storage_url_not_allowed")


def test_a_tenant_reads_its_own_prefix_and_keeps_files_of_its_own(
    s3: Any, redis_url: str, tmp_path: Path, credentials: None
) -> None:
    content = b"the same bytes for both"
    s3.put_object(Bucket="models", Key="one/m", Body=content)
    s3.put_object(Bucket="public", Key="nets/m", Body=content)
    keys = {
        tenant: Keys(tmp_path).create(tenant, tenant=tenant).secret for tenant in ("one", "two")
    }
    shares = ServiceSettings(StoreSettings(tmp_path, redis_url)).shares
    for api in started(
        redis_url, tmp_path, shares=dataclasses.replace(shares, upload_bytes_per_day=30)
    ):
        one, two = (api.client(authorization=f"Bearer {keys[t]}") for t in ("one", "two"))
        with one, two:
            own = one.post("/files", params={"url": "s3://models/one/m"})
            assert own.status_code == 201
            foreign = two.post("/files", params={"url": "s3://models/one/m"})
            problem(foreign, 422, "storage_url_not_allowed")
            assert two.get(f"/files/{own.json()['id']}").status_code == 404
            assert two.post("/files", params={"url": "s3://public/nets/m"}).status_code == 201
            spent = one.post("/files", params={"url": "s3://public/nets/m"})
            problem(spent, 429, "quota_exceeded")


DATE = "Tue, 24 Nov 2026 00:00:00 GMT"
REFUSED = b"""<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message>
<AWSAccessKeyId>AKIANOBODYMAYSEEIT00</AWSAccessKeyId><HostId>secret-host</HostId></Error>"""


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Answer(403, REFUSED, {"Content-Type": "application/xml"}), 422, "storage_unreadable"),
        (Answer(500, b"secret-host is broken"), 503, "unavailable"),
        (Answer(200, b"short", {"ETag": '"x"', "Last-Modified": DATE}, 4000), 503, "unavailable"),
        (Answer(silent=True), 503, "unavailable"),
    ],
    ids=["denied", "broken", "cut", "gone"],
)  # fmt: skip
def test_a_storage_that_fails_is_told_apart_and_its_words_and_our_keys_stay_inside(
    redis_url: str,
    tmp_path: Path,
    credentials: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
    status: int,
    code: str,
) -> None:
    server = FaultServer(lambda _: answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setattr(storage, "TRIES", 0)
    try:
        for api in started(redis_url, tmp_path):
            with api.client() as client:
                got = client.post("/files", params={"url": "s3://public/nets/m"})
            problem(got, status, code)
            assert api.leftovers() == []
    finally:
        server.close()
    everything = got.text + caplog.text
    for hidden in (KEY_ID, SECRET, "secret-host", server.url):
        assert hidden not in everything


def test_a_silent_storage_ends_in_time(
    redis_url: str, tmp_path: Path, credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(_: object) -> Answer:
        time.sleep(4)
        return Answer(silent=True)

    server = FaultServer(hang)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setattr(storage, "SILENT_SECONDS", 1)
    monkeypatch.setattr(storage, "TRIES", 0)
    try:
        for api in started(redis_url, tmp_path):
            with api.client() as client:
                began = time.monotonic()
                got = client.post("/files", params={"url": "s3://public/nets/m"})
                assert time.monotonic() - began < 3.5
            problem(got, 503, "unavailable")
    finally:
        server.close()


def test_only_the_api_gets_the_credentials(credentials: None) -> None:
    show = "import json, os; print(json.dumps([k for k in os.environ if k.startswith('AWS_')]))"
    seen = {}
    for module in ("service.main", "worker.main"):
        command = [sys.executable, "-c", show]
        found = subprocess.run(
            command, env=environment({}, module), capture_output=True, check=True
        )
        seen[module] = json.loads(found.stdout)
    assert set(seen["service.main"]) >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert seen["worker.main"] == []


@pytest.mark.parametrize(
    "text", ["s3://models", "s3://models/a", "http://x/", "file:///srv/", "s3://Models/", "*"]
)
def test_a_prefix_with_a_mistake_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
) -> None:
    monkeypatch.setenv("PLANISH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv(ENV_STORAGE, f"s3://good/,{text}")
    with pytest.raises(InvalidSettingsError, match=ENV_STORAGE):
        ServiceSettings.from_env()


def test_urls_are_taken_out_of_a_spec_and_ids_put_in() -> None:
    document = {
        "files": {
            "model": [{"url": "s3://abc/k", "name": "n"}, {"id": "sha256:x", "name": "m"}],
            "data": {"url": "s3://abc/d"},
        }
    }
    plain, urls = take_urls(document)
    assert set(urls) == {Place("model", 0), Place("data")}
    ids = {place: f"sha256:{place.role}" for place in urls}
    assert put_ids(document, ids) == {
        "files": {
            "model": [{"id": "sha256:model", "name": "n"}, {"id": "sha256:x", "name": "m"}],
            "data": "sha256:data",
        }
    }
    assert "url" not in json.dumps(plain)
    for other in ([], {"files": []}, {"files": {"model": 5}}, "text", None):
        assert take_urls(other) == (other, {})


@pytest.mark.parametrize(
    "url",
    [
        "s3://abc/./k",
        "s3://abc/k/..",
        "s3://abc//k",
        "s3://abc/",
        "s3://a b/k",
        "s3://abc/%2e",
        "s3://abc/k\n",
    ],
)
def test_a_url_that_could_mean_something_else_is_refused(url: str) -> None:
    with pytest.raises(InvalidSpec):
        storage_url({"url": url})
