from __future__ import annotations

import base64
import hashlib
import itertools
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from planish.contract.job import Job
from tests.service.conftest import SPEC, Api, form, problem, safetensors


def test_multipart_gives_202_with_location_and_the_job(client: httpx.Client, model: bytes) -> None:
    answer = client.post("/jobs", files=form({**SPEC, "name": "first"}, model=model))
    assert answer.status_code == 202
    job = Job.model_validate(answer.json())
    assert answer.headers["location"] == f"/jobs/{job.id}"
    assert (job.status, job.name, job.terminal) == ("queued", "first", False)
    assert job.spec.files is not None
    assert job.spec.files.model == f"sha256:{hashlib.sha256(model).hexdigest()}"
    assert job.links.self == f"/jobs/{job.id}"


def test_the_parts_may_come_in_any_order(client: httpx.Client, api: Api, model: bytes) -> None:
    inputs = np.zeros((10, 32, 32, 3), np.uint8)
    targets = np.arange(10, dtype=np.int64)
    data = safetensors({"input": inputs, "targets": targets})
    parts = form(SPEC, model=model, data=data)
    for order in itertools.permutations(parts):
        answer = client.post("/jobs", files=list(order))
        assert answer.status_code == 202, answer.text
    assert api.leftovers() == []


def test_json_with_file_ids_gives_the_same_job_spec(client: httpx.Client, model: bytes) -> None:
    file_id = client.post("/files", content=model).json()["id"]
    answer = client.post("/jobs", json={**SPEC, "files": {"model": file_id}})
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["files"]["model"] == file_id


def test_a_student_comes_as_a_part_or_as_a_file_id(client: httpx.Client, model: bytes) -> None:
    smaller = safetensors({"conv.weight": np.zeros((2, 3, 3, 3), np.float32)})
    spec = {**SPEC, "student": SPEC["model"]}
    answer = client.post("/jobs", files=form(spec, model=model, student=smaller))
    assert answer.status_code == 202, answer.text
    files = answer.json()["spec"]["files"]
    assert files["student"] == f"sha256:{hashlib.sha256(smaller).hexdigest()}"
    again = client.post("/jobs", json={**spec, "files": files})
    assert again.status_code == 202, again.text
    assert again.json()["spec"] == answer.json()["spec"]


def test_a_student_of_random_weights_that_nobody_trains_is_refused(
    client: httpx.Client, api: Api, model: bytes
) -> None:
    spec = {**SPEC, "student": {"architecture": {"library": "planish", "name": "cifar_resnet"}}}
    body = problem(client.post("/jobs", files=form(spec, model=model)), 422, "invalid_recipe")
    assert "put distill or retrain into the recipe" in str(body["detail"])
    spec["student"] = {}
    body = problem(client.post("/jobs", files=form(spec, model=model)), 422, "missing_part")
    assert body["errors"][0]["pointer"] == "/files/student"
    assert api.leftovers() == []


def test_an_unknown_file_id_is_named_by_its_pointer(client: httpx.Client) -> None:
    answer = client.post("/jobs", json={**SPEC, "files": {"model": "sha256:" + "0" * 64}})
    body = problem(answer, 422, "invalid_spec")
    assert body["errors"][0]["pointer"] == "/files/model"


def test_no_files_in_json_is_a_missing_part(client: httpx.Client) -> None:
    problem(client.post("/jobs", json=SPEC), 422, "missing_part")


def test_no_model_part_is_a_missing_part(client: httpx.Client, api: Api, model: bytes) -> None:
    body = problem(client.post("/jobs", files=form(SPEC)), 422, "missing_part")
    assert body["errors"][0]["pointer"] == "/model"
    problem(client.post("/jobs", files=form(SPEC, data=model)), 422, "missing_part")
    assert api.leftovers() == []


def test_no_spec_part_is_a_missing_part(client: httpx.Client, api: Api, model: bytes) -> None:
    problem(client.post("/jobs", files=form(SPEC, model=model)[1:]), 422, "missing_part")
    assert api.leftovers() == []


def test_an_empty_model_is_a_missing_part(client: httpx.Client, api: Api) -> None:
    problem(client.post("/jobs", files=form(SPEC, model=b"")), 422, "missing_part")
    assert api.leftovers() == []


@pytest.mark.parametrize("name", ["students", "modle", "../model", ""])
def test_an_unknown_part_is_refused_and_the_known_ones_named(
    client: httpx.Client, api: Api, model: bytes, name: str
) -> None:
    parts = [*form(SPEC, model=model), (name, ("x", b"1", "text/plain"))]
    answer = client.post("/jobs", files=parts)
    assert "model, data, test_data, teacher, student" in str(
        problem(answer, 422, "invalid_input")["detail"]
    )
    assert api.leftovers() == []


def test_a_part_that_comes_twice_is_malformed(client: httpx.Client, api: Api, model: bytes) -> None:
    parts = form(SPEC, model=model)
    problem(client.post("/jobs", files=[*parts, parts[1]]), 400, "malformed_request")
    assert api.leftovers() == []


def test_a_body_that_ends_early_is_malformed(client: httpx.Client, api: Api, model: bytes) -> None:
    request = client.build_request("POST", "/jobs", files=form(SPEC, model=model))
    whole = request.read()
    headers = {"content-type": request.headers["content-type"]}
    for cut in range(1, len(whole), len(whole) // 20):
        answer = client.post("/jobs", content=whole[:cut], headers=headers)
        assert answer.status_code in (400, 422), answer.text
        assert answer.json()["code"] in ("malformed_request", "missing_part")
    assert api.leftovers() == []


def test_a_model_cut_short_is_refused_wherever_the_cut_is(
    client: httpx.Client, api: Api, model: bytes
) -> None:
    for cut in range(1, len(model), max(1, len(model) // 20)):
        answer = client.post("/jobs", files=form(SPEC, model=model[:cut]))
        assert answer.status_code == 422, (cut, answer.text)
        assert answer.json()["code"] in ("invalid_model", "unknown_model_format")
    assert api.leftovers() == []


def test_a_text_file_named_pt2_is_an_unknown_format(client: httpx.Client) -> None:
    parts = [*form(SPEC), ("model", ("model.pt2", b"I am no model\n" * 100, "text/plain"))]
    problem(client.post("/jobs", files=parts), 422, "unknown_model_format")


def test_bare_weights_without_architecture_are_refused(client: httpx.Client, model: bytes) -> None:
    spec = {"recipe": SPEC["recipe"]}
    problem(client.post("/jobs", files=form(spec, model=model)), 422, "architecture_required")


def test_data_without_the_models_input_is_refused(client: httpx.Client, model: bytes) -> None:
    data = safetensors({"pixels": np.zeros((4, 3, 32, 32), np.float32)})
    answer = client.post("/jobs", files=form(SPEC, model=model, data=data))
    problem(answer, 422, "input_not_found")


@pytest.mark.parametrize(
    ("change", "pointer", "says"),
    [
        ({"recipie": []}, "/recipie", "recipe"),
        ({"recipe": [{"op": "prune", "sparsty": 0.5}]}, "/recipe/0/sparsty", "sparsity"),
        ({"recipe": [{"op": "prun"}]}, "/recipe/0", "prune"),
        ({"recipe": [{"op": "prune", "sparsity": 1.5}]}, "/recipe/0/sparsity", "1.5"),
        ({"goal": {"minimize": "size"}}, "", "recipe or goal"),
    ],
)
def test_a_bad_spec_names_field_and_remedy(
    client: httpx.Client, model: bytes, change: dict[str, object], pointer: str, says: str
) -> None:
    answer = client.post("/jobs", files=form({**SPEC, **change}, model=model))
    body = problem(answer, 422, "invalid_spec")
    assert body["errors"][0]["pointer"] == pointer
    assert says in body["errors"][0]["detail"]


@pytest.mark.parametrize(
    "spec", [b"{", b"\xff", b"[" * 100, b'{"seed":1,"seed":2}', b'{"seed":NaN}']
)
def test_a_spec_that_is_no_json_is_malformed(
    client: httpx.Client, model: bytes, spec: bytes
) -> None:
    problem(client.post("/jobs", files=form(spec, model=model)), 400, "malformed_request")


@pytest.mark.parametrize("spec", [b"null", b"[]", b'"x"', b"1", b'{"name":"\\ud800"}'])
def test_a_spec_that_is_no_object_is_refused(
    client: httpx.Client, model: bytes, spec: bytes
) -> None:
    answer = client.post("/jobs", files=form(spec, model=model))
    assert answer.status_code in (400, 422)


def test_a_spec_above_its_limit_is_too_large(client: httpx.Client, api: Api, model: bytes) -> None:
    spec = json.dumps(SPEC).encode() + b" " * (1 << 20)
    problem(client.post("/jobs", files=form(spec, model=model)), 413, "too_large")
    answer = client.post("/jobs", content=spec, headers={"content-type": "application/json"})
    problem(answer, 413, "too_large")
    assert api.leftovers() == []


def test_more_gpus_than_the_fleet_has_are_refused(client: httpx.Client, model: bytes) -> None:
    answer = client.post("/jobs", files=form({**SPEC, "resources": {"gpus": 64}}, model=model))
    body = problem(answer, 422, "unsatisfiable_resources")
    assert body["errors"][0]["pointer"] == "/resources/gpus"


def test_files_in_a_multipart_spec_are_refused(client: httpx.Client, model: bytes) -> None:
    spec = {**SPEC, "files": {"model": "sha256:" + "0" * 64}}
    body = problem(client.post("/jobs", files=form(spec, model=model)), 422, "invalid_spec")
    assert body["errors"][0]["pointer"] == "/files"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_other_content_types_are_not_taken(client: httpx.Client, kind: str) -> None:
    answer = client.post("/jobs", content=b"{}", headers={"content-type": kind})
    problem(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 5000]
)
def test_a_multipart_type_needs_a_decent_boundary(client: httpx.Client, kind: str) -> None:
    answer = client.post("/jobs", content=b"{}", headers={"content-type": kind})
    problem(answer, 400, "malformed_request")


def test_a_wrong_digest_of_a_part_keeps_nothing(
    client: httpx.Client, api: Api, model: bytes
) -> None:
    wrong = base64.b64encode(bytes(32)).decode()
    boundary = "b0undary"
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n'
        f"Repr-Digest: sha-256=:{wrong}:\r\n\r\n"
    )
    spec = f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="spec"\r\n\r\n'
    content = head.encode() + model + spec.encode() + json.dumps(SPEC).encode()
    content += f"\r\n--{boundary}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    problem(client.post("/jobs", content=content, headers=headers), 422, "digest_mismatch")
    assert api.leftovers() == []


def test_the_digest_of_the_whole_body_is_checked(client: httpx.Client, model: bytes) -> None:
    request = client.build_request("POST", "/jobs", files=form(SPEC, model=model))
    content = request.read()
    headers = {"content-type": request.headers["content-type"]}
    right = base64.b64encode(hashlib.sha256(content).digest()).decode()
    digest = {"content-digest": f"sha-256=:{right}:"}
    assert client.post("/jobs", content=content, headers=headers | digest).status_code == 202
    digest = {"x-content-sha256": "0" * 64}
    answer = client.post("/jobs", content=content, headers=headers | digest)
    problem(answer, 422, "digest_mismatch")


def test_an_idempotency_key_gives_the_same_job_again(
    api: Api, client: httpx.Client, model: bytes
) -> None:
    with api.client(**{"Idempotency-Key": "once"}) as keyed:
        first, again = (keyed.post("/jobs", files=form(SPEC, model=model)) for _ in range(2))
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
        other = keyed.post("/jobs", files=form({**SPEC, "seed": 1}, model=model))
        problem(other, 422, "idempotency_key_reused")
        file_id = first.json()["spec"]["files"]["model"]
        as_json = keyed.post("/jobs", json={**SPEC, "files": {"model": file_id}})
        assert as_json.json()["id"] == first.json()["id"]


def test_simultaneous_uploads_with_one_key_make_one_job(api: Api, model: bytes) -> None:
    def send(_: int) -> str:
        with api.client(**{"Idempotency-Key": "together"}) as keyed:
            answer = keyed.post("/jobs", files=form(SPEC, model=model))
            assert answer.status_code == 202, answer.text
            return str(answer.json()["id"])

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(send, range(6)))) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there"])
def test_a_bad_idempotency_key_is_refused(client: httpx.Client, model: bytes, key: str) -> None:
    answer = client.post("/jobs", files=form(SPEC, model=model), headers={"Idempotency-Key": key})
    problem(answer, 400, "invalid_parameter")


def test_a_client_gone_mid_upload_leaves_nothing(api: Api, model: bytes) -> None:
    head = (
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
    )
    address = ("127.0.0.1", int(api.url.rsplit(":", 1)[1]))
    with socket.create_connection(address) as connection:
        connection.sendall(head + bytes(2_000_000))
        while not list((api.root / "uploads").iterdir()):
            time.sleep(0.01)
    assert api.leftovers() == []


def test_an_early_answer_reaches_a_client_that_is_still_sending(client: httpx.Client) -> None:
    content = b"x" * (8 << 20)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    bad = b'--b\r\nContent-Disposition: form-data; name="spec"\r\n\r\n{}\r\n--b\r\n' + content
    for _ in range(5):
        problem(client.post("/jobs", content=bad, headers=headers), 422, "invalid_spec")


def test_a_body_above_the_limit_is_too_large(client: httpx.Client, api: Api) -> None:
    problem(client.post("/files", content=bytes((32 << 20) + 1)), 413, "too_large")

    def endless() -> object:
        for _ in range(40):
            yield bytes(1 << 20)

    problem(client.post("/files", content=endless()), 413, "too_large")  # type: ignore[arg-type]
    assert api.leftovers() == []


def test_labels_and_names_come_back_as_sent(
    client: httpx.Client, submit: Callable[..., str]
) -> None:
    job_id = submit(name="größer → kleiner", labels={"team": "edge", "ключ": "значение"})
    job = client.get(f"/jobs/{job_id}").json()
    assert job["name"] == "größer → kleiner"
    assert job["labels"] == {"team": "edge", "ключ": "значение"}
