"""Who may see and do what: every endpoint of the API against every kind of key."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from planish.store.audit import FILE, check_chain
from planish.store.blobs import TenantBlobs
from planish.store.keys import Keys, NewKey, Scope
from planish.store.settings import StoreSettings
from service.auth import OPEN_PATHS, needed_scope
from service.settings import ServiceSettings
from tests.service.conftest import SPEC, Api, form, serve

WRONG = ("none", "nonsense", "foreign", "read_only", "write_only", "expired", "revoked")
METHODS = {"get", "post", "delete", "head", "patch", "put"}


class House:
    """An API with one tenant's job and file, and keys of all kinds."""

    def __init__(self, api: Api, model: bytes) -> None:
        self.api, self.keys, self.model = api, Keys(api.root), model
        self.owner = self._key("acme", *Scope)
        revoked = self.keys.create("revoked", "acme", tuple(Scope))
        self.keys.revoke(revoked.record.id)
        self.bearers: dict[str, str | None] = {
            "none": None,
            "nonsense": "planish_0123456789_" + "0" * 72,
            "foreign": self._key("other", *Scope),
            "read_only": self._key("acme", Scope.READ),
            "write_only": self._key("acme", Scope.WRITE),
            "expired": self._key("acme", *Scope, lifetime=timedelta(microseconds=1)),
            "revoked": revoked.secret,
        }
        self.client = httpx.Client(base_url=api.url, timeout=20)
        self.job = self.submit(self.owner)
        made = {"tus-resumable": "1.0.0", "upload-length": "9"}
        answer = self.client.post("/uploads", headers=self.headers(self.owner) | made)
        self.upload = answer.headers["location"].rpartition("/")[2]
        self.file = self.client.get("/files", headers=self.headers(self.owner)).json()["items"][0][
            "id"
        ]

    def _key(self, tenant: str, *scopes: Scope, lifetime: timedelta | None = None) -> str:
        new: NewKey = self.keys.create("test", tenant, scopes, lifetime)
        return new.secret

    def submit(self, bearer: str | None, **headers: str) -> str:
        """Submit a job with a label; return its id."""
        spec = {**SPEC, "labels": {"team": "edge"}}
        answer = self.client.post(
            "/jobs", files=form(spec, model=self.model), headers=self.headers(bearer) | headers
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    @staticmethod
    def headers(bearer: str | None) -> dict[str, str]:
        return {} if bearer is None else {"authorization": f"Bearer {bearer}"}

    def call(self, method: str, path: str, kind: str) -> httpx.Response:
        path = path.replace("{job_id}", self.job).replace("{file_id}", self.file)
        path = path.replace("{name}", "model.onnx").replace("{upload_id}", self.upload)
        headers = self.headers(self.bearers[kind]) | {"tus-resumable": "1.0.0"}
        if method == "PATCH":
            headers |= {"content-type": "application/offset+octet-stream", "upload-offset": "0"}
        return self.client.request(method, path, headers=headers)

    def all_there(self) -> bool:
        """Whether the owner's job is untouched and the file still there."""
        mine = self.headers(self.owner)
        job = self.client.get(f"/jobs/{self.job}", headers=mine).json()
        file = self.client.get(f"/files/{self.file}", headers=mine)
        tus = {"tus-resumable": "1.0.0"}
        upload = self.client.head(f"/uploads/{self.upload}", headers=mine | tus)
        untouched = upload.status_code == 200 and upload.headers["upload-offset"] == "0"
        return not job["cancel_requested"] and file.status_code == 200 and untouched


@pytest.fixture(scope="module")
def house(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, model: bytes
) -> Iterator[House]:
    store = StoreSettings(tmp_path_factory.mktemp("tenants"), redis_url)
    for api in serve(ServiceSettings(store, port=0)):
        house = House(api, model)
        yield house
        house.client.close()


def endpoints(house: House) -> list[tuple[str, str]]:
    paths = house.client.get("/openapi.json").json()["paths"]
    return [
        (method.upper(), path)
        for path, operations in paths.items()
        for method in operations
        if method in METHODS and path not in OPEN_PATHS
    ]


def expected(method: str, path: str, kind: str) -> set[int] | None:
    """Return the allowed refusals; None where this kind of key may do this."""
    scope = needed_scope(method, path)
    if kind == "read_only":
        return None if scope is Scope.READ else {403}
    if kind == "write_only":
        return None if scope is Scope.WRITE else {403}
    if kind == "foreign":
        return {404} if "{" in path else None
    return {401}


@pytest.mark.parametrize("kind", WRONG)
def test_every_endpoint_refuses_every_wrong_key(house: House, kind: str) -> None:
    found = endpoints(house)
    assert len(found) >= 15
    for method, path in found:
        allowed = expected(method, path, kind)
        if allowed is not None:
            response = house.call(method, path, kind)
            assert response.status_code in allowed, (kind, method, path, response.text)
            if method != "HEAD":
                assert response.json()["code"] in {"unauthorized", "forbidden", "not_found"}
    assert house.all_there()


def test_lists_show_only_ones_own(house: House) -> None:
    mine, other = house.headers(house.owner), house.headers(house.bearers["foreign"])
    found = house.client.get("/jobs", headers=mine).json()["items"]
    assert house.job in [job["id"] for job in found]
    third = house.headers(house.keys.create("third", "third").secret)
    for bearer in (other, third):
        for params in ({}, {"label": "team=edge"}, {"status": "queued"}):
            items = house.client.get("/jobs", headers=bearer, params=params).json()["items"]
            assert house.job not in [job["id"] for job in items]
    assert house.client.get("/files", headers=third).json()["items"] == []


def test_a_foreign_file_id_is_unknown_in_a_spec(house: House) -> None:
    body = {"recipe": [{"op": "simplify"}], "files": {"model": house.file}}
    other = house.headers(house.bearers["foreign"])
    response = house.client.post("/jobs", json=body, headers=other)
    assert response.status_code == 422
    assert "there is no file" in response.json()["detail"]


def test_one_tenants_idempotency_key_is_no_others(house: House) -> None:
    key = {"idempotency-key": "the-same"}
    first = house.submit(house.owner, **key)
    other = house.submit(house.bearers["foreign"], **key)
    again = house.submit(house.owner, **key)
    assert first == again != other


def test_the_same_content_is_stored_once_for_each_tenant(house: House) -> None:
    content = b"same bytes" * 100
    ids = set()
    for bearer in (house.owner, house.bearers["foreign"]):
        for status in (201, 200):
            response = house.client.post("/files", content=content, headers=house.headers(bearer))
            assert response.status_code == status
            ids.add(response.json()["id"])
    (file_id,) = ids
    blobs = TenantBlobs(house.api.root)
    paths = {blobs.of(tenant).path(file_id) for tenant in ("acme", "other")}
    assert len({path.stat().st_ino for path in paths}) == 2
    house.client.delete(f"/files/{file_id}", headers=house.headers(house.bearers["foreign"]))
    assert blobs.of("acme").size(file_id) == len(content)


def test_the_audit_log_names_who_did_what_and_what_was_refused(house: House) -> None:
    house.client.post("/files", content=b"audited", headers=house.headers(house.owner))
    house.client.get("/files/the-last-line", headers=house.headers("wrong"))
    text = _wait_for(house.api.root / FILE, "the-last-line")
    assert '"outcome": "401"' in text.splitlines()[-1]
    events = [json.loads(line) for line in text.splitlines()]
    assert {"job.submitted", "file.uploaded"} <= {event["action"] for event in events}
    assert {event["tenant"] for event in events} >= {"acme", "other"}
    assert all(house.owner not in json.dumps(event) for event in events)
    assert check_chain(house.api.root) is None


def _wait_for(path: Path, text: str) -> str:
    for _ in range(400):
        if text in (found := path.read_text()):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{text} is not in the log")
