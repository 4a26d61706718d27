"""Files that broke the sandbox before: refused at once, for whoever they belong to."""

from __future__ import annotations

import hashlib

import httpx

from planish.contract.errors import ConversionFailed
from planish.contract.wire import JOB_QUEUE, PLAN_QUEUE
from planish.store.denied import TRIES, DeniedFiles
from tests.service.conftest import SPEC, Api, form, problem
from tests.service.test_plans import planner


def test_file_that_broke_the_sandbox_is_refused_at_submit_until_it_is_cleared(
    api: Api, client: httpx.Client, model: bytes
) -> None:
    denied = DeniedFiles(api.root)
    file_id = f"sha256:{hashlib.sha256(model).hexdigest()}"
    assert client.post("/jobs", files=form(SPEC, model=model)).status_code == 202
    for crash in range(TRIES):
        assert client.post("/jobs", files=form(SPEC, model=model)).status_code == 202, crash
        denied.count(file_id, "default", "it died by SIGSEGV", f"job_{crash}")
    body = problem(client.post("/jobs", files=form(SPEC, model=model)), 422, "file_denied")
    assert "SIGSEGV" in str(body["detail"])
    assert body["errors"] == [{"pointer": "/files/model", "detail": body["detail"]}]
    by_id = {**SPEC, "files": {"model": file_id}}
    problem(client.post("/jobs", json=by_id), 422, "file_denied")
    api.ledger.register_worker("test", 0, (JOB_QUEUE, PLAN_QUEUE), 10)
    problem(client.post("/plans", json=by_id), 422, "file_denied")
    assert [entry.id for entry in denied.clear()] == [file_id]
    assert client.post("/jobs", json=by_id).status_code == 202


def test_job_that_was_accepted_before_is_still_found_by_its_key(
    api: Api, client: httpx.Client, model: bytes
) -> None:
    headers = {"Idempotency-Key": "once"}
    first = client.post("/jobs", files=form(SPEC, model=model), headers=headers)
    file_id = f"sha256:{hashlib.sha256(model).hexdigest()}"
    for _ in range(TRIES):
        DeniedFiles(api.root).count(file_id, "default", "it died by SIGSEGV", "job")
    again = client.post("/jobs", files=form(SPEC, model=model), headers=headers)
    DeniedFiles(api.root).clear()
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_crashes_of_one_tenant_say_nothing_about_anothers_file(api: Api) -> None:
    denied = DeniedFiles(api.root)
    denied.clear()
    file_id = "sha256:" + "0" * 64
    for _ in range(TRIES):
        found = denied.count(file_id, "other", "it died by SIGSEGV", "job")
    assert found.refused
    assert denied.find(file_id) is None
    assert [entry.tenant for entry in denied.known()] == ["other"]


def test_plan_whose_upload_broke_the_sandbox_is_a_refusal(api: Api, model: bytes) -> None:
    thread = planner(api, ConversionFailed("the model broke the process: it died by SIGSEGV"))
    with api.client() as client:
        answer = client.post("/plans", files=form(SPEC, model=model))
    thread.join()
    assert "SIGSEGV" in str(problem(answer, 422, "conversion_failed")["detail"])
