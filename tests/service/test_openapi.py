from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from planish.contract.errors import BY_CODE
from planish.contract.problem import PROBLEM_MEDIA_TYPE
from planish.contract.spec import PARTS

CALLS = {
    "/jobs": {"get", "post"},
    "/jobs/{job_id}": {"get", "delete"},
    "/jobs/{job_id}/cancel": {"post"},
    "/jobs/{job_id}/events": {"get"},
    "/jobs/{job_id}/deliveries": {"get", "post"},
    "/jobs/{job_id}/logs": {"get"},
    "/jobs/{job_id}/report": {"get"},
    "/jobs/{job_id}/artifacts": {"get"},
    "/jobs/{job_id}/artifacts/{name}": {"get", "head"},
    "/jobs/{job_id}/artifacts/{name}/link": {"post"},
    "/jobs/{job_id}/model": {"get"},
    "/plans": {"post"},
    "/files": {"get", "post"},
    "/files/{file_id}": {"get", "head", "delete"},
    "/uploads": {"options", "post"},
    "/uploads/{upload_id}": {"head", "patch", "delete"},
    "/passes": {"get"},
    "/architectures": {"get"},
    "/healthz": {"get"},
    "/readyz": {"get"},
    "/metrics": {"get"},
}


@pytest.fixture
def document(client: httpx.Client) -> dict[str, object]:
    return dict(client.get("/openapi.json").json())


def operations(document: dict) -> list[tuple[str, str, dict]]:
    return [(p, m, o) for p, item in document["paths"].items() for m, o in item.items()]


def test_all_calls_of_the_contract_are_described(document: dict) -> None:
    assert {path: set(item) for path, item in document["paths"].items()} == CALLS


def test_every_reference_leads_somewhere(document: dict) -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [r for child in value.values() for r in references(child)]
        return [r for child in value for r in references(child)] if isinstance(value, list) else []

    found = set(references(document))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_every_failure_is_described_as_a_problem(document: dict) -> None:
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == [PROBLEM_MEDIA_TYPE], (path, method, status)
        assert "500" in operation["responses"]


def test_every_operation_has_a_summary_and_its_own_id(document: dict) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert all(operation["summary"] for _, _, operation in operations(document))


def test_both_bodies_of_a_submission_are_described(document: dict) -> None:
    for path in ("/jobs", "/plans"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"multipart/form-data", "application/json"}
        schema = content["multipart/form-data"]["schema"]
        assert set(schema["properties"]) == {"spec", *PARTS}


def test_the_documentation_lists_the_same_calls(document: dict) -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    for path, method, _ in operations(document):
        if method != "head":
            assert f"`{method.upper()} {path}`" in text, (method, path)


def test_the_documentation_lists_every_error_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    client_side = {"error", "server_unreachable", "wait_timeout", "verification_failed"}
    for code in set(BY_CODE) - client_side:
        assert f"`{code}`" in text, code
