"""Several files of one part: multipart with file names, or JSON with names: the same job."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from planish.client.asynchronous import AsyncClient
from planish.client.sources import Sources
from planish.client.sync import Client
from planish.contract.spec import Spec
from planish.store.blobs import Blobs
from service.multipart import FormReader
from service.upload import FileSink
from tests.service.conftest import SPEC, Api, problem, safetensors

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDS = {
    FIRST: safetensors({"a": np.zeros(4, np.float32)}),
    SECOND: safetensors({"b": np.zeros(4, np.float32)}),
    INDEX: json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode(),
    "tokenizer.json": b'{"version": "1.0"}',
    "LICENSE": b"Do as you like.",
}

Parts = list[tuple[str, tuple[str, bytes, str]]]


def multipart(files: dict[str, bytes]) -> Parts:
    spec = ("spec", ("spec.json", json.dumps(SPEC).encode(), "application/json"))
    return [spec, *(("model", (n, c, "application/octet-stream")) for n, c in files.items())]


def uploaded(client: httpx.Client, files: dict[str, bytes]) -> list[dict[str, str]]:
    ids = {n: client.post("/files", content=c).json()["id"] for n, c in files.items()}
    return [{"id": file_id, "name": name} for name, file_id in ids.items()]


def test_a_part_may_repeat_with_file_names(client: httpx.Client, api: Api) -> None:
    answer = client.post("/jobs", files=multipart(SHARDS))
    assert answer.status_code == 202, answer.text
    files = answer.json()["spec"]["files"]["model"]
    assert [file["name"] for file in files] == sorted(SHARDS)
    for file in files:
        assert api.blobs.path(file["id"]).read_bytes() == SHARDS[file["name"]]
    assert api.leftovers() == []


def test_only_the_base_name_of_a_file_is_kept(client: httpx.Client) -> None:
    names = {f"C:\\models/{name}": content for name, content in SHARDS.items()}
    answer = client.post("/jobs", files=multipart(names))
    assert answer.status_code == 202, answer.text
    kept = [file["name"] for file in answer.json()["spec"]["files"]["model"]]
    assert kept == sorted(SHARDS)


def test_names_in_json_are_the_same_request_in_any_order(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "parts-1"}
    first = client.post("/jobs", files=multipart(SHARDS), headers=key)
    files = uploaded(client, SHARDS)[::-1]
    again = client.post("/jobs", json={**SPEC, "files": {"model": files}}, headers=key)
    assert again.status_code == 202, again.text
    assert again.json()["id"] == first.json()["id"]
    files[0]["name"], files[1]["name"] = files[1]["name"], files[0]["name"]
    other = client.post("/jobs", json={**SPEC, "files": {"model": files}}, headers=key)
    assert other.status_code == 422


def test_a_list_of_one_file_is_that_file(client: httpx.Client, model: bytes) -> None:
    files = uploaded(client, {"model.safetensors": model})
    answer = client.post("/jobs", json={**SPEC, "files": {"model": files}})
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["files"]["model"] == files[0]["id"]


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "A"], ["a", ".."], ["a", ".hidden"], ["a", ""], ["a", "ä"]]
)
def test_names_that_cannot_be_files_are_malformed(
    client: httpx.Client, api: Api, model: bytes, names: list[str]
) -> None:
    parts = [multipart({})[0], *(("model", (name, model, "text/plain")) for name in names)]
    problem(client.post("/jobs", files=parts), 400, "malformed_request")
    assert api.leftovers() == []


def test_more_files_than_allowed_are_refused_before_they_arrive(
    client: httpx.Client, api: Api
) -> None:
    many = {f"part-{at}": b"x" for at in range(129)}
    body = problem(client.post("/jobs", files=multipart(many)), 400, "malformed_request")
    assert "128" in str(body["detail"])
    assert api.leftovers() == []


def test_many_files_hold_no_open_ones_while_the_form_arrives(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    reader = FormReader(b"bound", lambda: FileSink(blobs.new_upload()))
    head = '--bound\r\nContent-Disposition: form-data; name="model"; filename="m%d"\r\n\r\n%d\r\n'
    for at in range(100):
        for sink, piece in reader.feed((head % (at, at)).encode()):
            sink.write(piece)
        assert sum(file.upload.fd >= 0 for file in reader.sinks()) <= 1
    uploads = [file.upload for file in reader.sinks()]
    assert blobs.keep(uploads[7], hashlib.sha256(b"7").hexdigest(), 1).startswith("sha256:79")


@pytest.mark.parametrize("drop", [FIRST, INDEX])
def test_what_is_missing_among_the_files_is_named(client: httpx.Client, drop: str) -> None:
    rest = {name: content for name, content in SHARDS.items() if name != drop}
    body = problem(client.post("/jobs", files=multipart(rest)), 422, "invalid_model")

    assert INDEX in str(body["detail"]) or drop in str(body["detail"])


def test_unknown_ids_in_a_list_are_pointed_at(client: httpx.Client) -> None:
    files = uploaded(client, SHARDS)
    files[1]["id"] = "sha256:" + "0" * 64
    body = problem(
        client.post("/jobs", json={**SPEC, "files": {"model": files}}), 422, "invalid_spec"
    )
    ordered = sorted(file["name"] for file in files)
    where = f"/files/model/{ordered.index(files[1]['name'])}/id"
    assert [error["pointer"] for error in body["errors"]] == [where]  # type: ignore[index, attr-defined]


def test_several_data_files_are_refused_by_name(client: httpx.Client, model: bytes) -> None:
    data = [("data", (name, model, "text/plain")) for name in ("a.npz", "b.npz")]
    parts = [*multipart({"model.safetensors": model}), *data]
    body = problem(client.post("/jobs", files=parts), 422, "invalid_data")
    assert "a.npz, b.npz" in str(body["detail"])


def test_a_file_of_a_list_is_in_use(client: httpx.Client) -> None:
    answer = client.post("/jobs", files=multipart(SHARDS))
    for file in answer.json()["spec"]["files"]["model"]:
        problem(client.delete(f"/files/{file['id']}"), 409, "file_in_use")


def laid_out(folder: Path) -> Path:
    """A folder as Hugging Face publishes it, with things that stay where they are."""
    for name, content in {**SHARDS, "train.py": b"print()", ".gitattributes": b"x"}.items():
        (folder / name).write_bytes(content)
    (folder / "onnx").mkdir()
    return folder


def test_a_client_sends_a_folder_file_by_file(api: Api, tmp_path: Path) -> None:
    spec = Spec.model_validate(SPEC)
    with Client(api.url) as client:
        job = client.submit(spec, Sources(laid_out(tmp_path)))
        again = client.submit(spec, Sources([tmp_path / name for name in SHARDS]))
    for found in (job.spec.files, again.spec.files):
        assert found is not None
        assert not isinstance(found.model, str)
        assert [file.name for file in found.model] == sorted(SHARDS)
        for file in found.model:
            assert api.blobs.path(file.id).read_bytes() == SHARDS[file.name]


async def test_an_async_client_sends_a_folder_too(api: Api, tmp_path: Path) -> None:
    async with AsyncClient(api.url) as client:
        job = await client.submit(Spec.model_validate(SPEC), Sources(laid_out(tmp_path)))
    assert job.spec.files is not None
    assert len(job.spec.files.model) == len(SHARDS)
