from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import planish
from planish.contract.errors import (
    FileInUse,
    MissingPart,
    NotFinished,
    NotFound,
    VerificationFailed,
)
from planish.contract.job import FileInfo, JobStatus
from tests.client.conftest import JOB, Driver, document, json_answer, problem
from tests.client.fault_server import Answer, FaultServer, Handler, Received

Serving = Callable[[Handler], FaultServer]
BODY = random.Random(0).randbytes(3_000_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
PART = f".model.onnx.{DIGEST[:16]}.part"


def ranged(request: Received, body: bytes = BODY) -> Answer:
    """Answer as the service does: whole, or the asked range when the tag fits."""
    etag = f'"{DIGEST}"'
    match = re.match(r"bytes=(\d+)-", request.headers.get("range", ""))
    if match is None or request.headers.get("if-range") != etag:
        return Answer(200, body, {"ETag": etag})
    start = int(match[1])
    span = f"bytes {start}-{len(body) - 1}/{len(body)}"
    return Answer(206, body[start:], {"ETag": etag, "Content-Range": span})


def serving_artifact(deliver: Handler) -> Handler:
    job = json_answer(document(JobStatus.SUCCEEDED, {"model.onnx": BODY}))
    return lambda request: deliver(request) if "artifacts" in request.path else job


def cut(answer: Answer, size: int, *, reset: bool = False) -> Answer:
    """Send only the first bytes of an answer."""
    return Answer(answer.status, answer.body[:size], answer.headers, len(answer.body), reset)


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_download_goes_on_where_it_stopped(
    serving: Serving, kind: str, tmp_path: Path, reset: bool
) -> None:
    left = [cut] * 3

    def deliver(request: Received) -> Answer:
        answer = ranged(request)
        return left.pop()(answer, 700_000, reset=reset) if left else answer

    server = serving(serving_artifact(deliver))
    path = Driver(kind, server.url).call("download", JOB, tmp_path)
    assert path == tmp_path / "model.onnx"
    assert path.read_bytes() == BODY
    asked = server.asked("GET", f"/jobs/{JOB}/artifacts/model.onnx")
    ranges = [request.headers.get("range") for request in asked]
    assert ranges[0] is None
    assert None not in ranges[1:]
    assert len(ranges) == 4
    assert [item.name for item in tmp_path.iterdir()] == ["model.onnx"]


def test_another_run_resumes_the_partial_file(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(BODY[:1_000_000])
    server = serving(serving_artifact(ranged))
    Driver("sync", server.url).call("download", JOB, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == BODY
    assert server.requests[-1].headers["range"] == "bytes=1000000-"


@pytest.mark.parametrize(
    "torn", [b"x" * 1000, BODY + b"more", BODY[:-1] + b"?", BODY], ids=lambda b: len(b)
)
def test_a_torn_partial_file_does_no_harm(serving: Serving, tmp_path: Path, torn: bytes) -> None:
    (tmp_path / PART).write_bytes(torn)
    Driver("sync", serving(serving_artifact(ranged)).url).call("download", JOB, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == BODY
    assert not (tmp_path / PART).exists()


def test_a_server_without_ranges_is_read_from_the_start(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / PART).write_bytes(BODY[:1_000_000])
    server = serving(serving_artifact(lambda _: Answer(200, BODY)))
    Driver("sync", server.url).call("download", JOB, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == BODY


def test_wrong_content_is_never_shown_as_a_file(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    wrong = b"?" * len(BODY)
    server = serving(serving_artifact(lambda request: ranged(request, wrong)))
    with pytest.raises(VerificationFailed, match="does not have the sha256"):
        Driver(kind, server.url).call("download", JOB, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_not_fetched_again(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(BODY)
    server = serving(serving_artifact(ranged))
    Driver("sync", server.url).call("download", JOB, tmp_path)
    assert server.asked("GET", f"/jobs/{JOB}/artifacts/model.onnx") == []


def test_two_downloads_into_one_folder_do_not_mix(serving: Serving, tmp_path: Path) -> None:
    def deliver(request: Received) -> Answer:
        with pytest.raises(FileInUse):
            Driver("sync", other.url).call("download", JOB, tmp_path)
        return ranged(request)

    other = serving(serving_artifact(ranged))
    server = serving(serving_artifact(deliver))
    Driver("sync", server.url).call("download", JOB, tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a\\b", "new\nline"])
def test_a_server_cannot_choose_where_files_go(serving: Serving, tmp_path: Path, name: str) -> None:
    job = json_answer(document(JobStatus.SUCCEEDED, {name: b"x"}))
    server = serving(lambda _: job)
    with pytest.raises(VerificationFailed, match="not written"):
        Driver("sync", server.url).call("download", JOB, tmp_path / "inner")
    assert list(tmp_path.rglob("*")) == [tmp_path / "inner"]


def test_only_succeeded_jobs_and_known_names_are_downloaded(
    serving: Serving, tmp_path: Path
) -> None:
    running = serving(lambda _: json_answer(document()))
    with pytest.raises(NotFinished):
        Driver("sync", running.url).call("download", JOB, tmp_path)
    server = serving(serving_artifact(ranged))
    with pytest.raises(NotFound, match=r"model\.onnx"):
        Driver("sync", server.url).call("download", JOB, tmp_path, "modle.onnx")


def accepting(server_has: bool = False) -> Handler:
    def handle(request: Received) -> Answer:
        if request.method == "HEAD":
            return Answer(200 if server_has else 404)
        if request.path == "/files":
            digest = hashlib.sha256(request.body).hexdigest()
            info = FileInfo(id=f"sha256:{digest}", size=len(request.body))
            return Answer(201, info.model_dump_json().encode())
        return json_answer(document())

    return handle


def test_an_upload_is_hashed_streamed_and_reported(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(BODY)
    server = serving(accepting())
    told: list[planish.Transfer] = []
    info = Driver(kind, server.url).call("upload", path, told.append)
    assert info.id == f"sha256:{DIGEST}"
    head, post = server.requests
    assert (head.method, head.path) == ("HEAD", f"/files/sha256:{DIGEST}")
    assert post.target == "/files?name=weights.safetensors"
    assert post.headers["content-length"] == str(len(BODY))
    assert post.headers["repr-digest"].startswith("sha-256=:")
    assert {t.phase for t in told} == {"hash", "upload"}
    assert told[-1].done == told[-1].total == len(BODY)


def test_content_that_the_server_has_is_not_sent(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(BODY)
    server = serving(accepting(server_has=True))
    told: list[planish.Transfer] = []
    assert Driver(kind, server.url).call("upload", path, told.append).size == len(BODY)
    assert [request.method for request in server.requests] == ["HEAD"]
    assert told[-1].phase == "present"


def test_a_broken_upload_starts_again(serving: Serving, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(BODY)
    good, faults = accepting(), [Answer(silent=True, reset=True)] * 2

    def handle(request: Received) -> Answer:
        return faults.pop() if request.method == "POST" and faults else good(request)

    server = serving(handle)
    assert Driver(kind, server.url).call("upload", path).id == f"sha256:{DIGEST}"
    assert len(server.asked("POST", "/files")) == 3


def test_every_try_of_a_submit_carries_the_same_key(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(BODY)
    good, faults = accepting(), [Answer(silent=True, reset=True), Answer(502)]

    def handle(request: Received) -> Answer:
        return faults.pop() if request.path == "/jobs" and faults else good(request)

    server = serving(handle)
    driver = Driver(kind, server.url)
    recipe = [planish.Prune(sparsity=0.25), planish.Quantize()]
    job = driver.call("optimize", path, recipe=recipe, name="mine", labels={"a": "b"}, seed=3)
    assert job.id == JOB
    tries = server.asked("POST", "/jobs")
    keys = {request.headers["idempotency-key"] for request in tries}
    assert (len(tries), len(keys)) == (3, 1)
    spec = planish.Spec.model_validate_json(tries[0].body, strict=True)
    assert (spec.name, spec.seed, spec.recipe) == ("mine", 3, tuple(recipe))
    assert spec.files is not None
    assert spec.files.model == f"sha256:{DIGEST}"
    driver.call("optimize", path, recipe=recipe)
    assert server.asked("POST", "/jobs")[-1].headers["idempotency-key"] not in keys


def test_teacher_and_student_are_sent_with_what_describes_them(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("model", "teacher", "student")]
    for path in paths:
        path.write_bytes(BODY)
    server = serving(accepting())
    small = planish.Architecture(library="planish", name="cifar_resnet")
    Driver(kind, server.url).call(
        "optimize",
        paths[0],
        teacher=paths[1],
        student=paths[2],
        student_architecture=small,
        recipe=[planish.Distill()],
    )
    (sent,) = server.asked("POST", "/jobs")
    spec = planish.Spec.model_validate_json(sent.body, strict=True)
    assert spec.files is not None
    assert spec.files.teacher == spec.files.student == f"sha256:{DIGEST}"
    assert spec.student is not None
    assert spec.student.architecture == small


def test_a_missing_file_is_named_before_anything_is_sent(
    serving: Serving, kind: str, tmp_path: Path
) -> None:
    model = tmp_path / "model.pt2"
    model.write_bytes(b"x")
    server = serving(accepting())
    for data, words in ((tmp_path / "no.npz", "there is no file"), (tmp_path, "is a folder")):
        with pytest.raises(MissingPart, match=words):
            Driver(kind, server.url).call("optimize", model, data=data, recipe=[planish.Quantize()])
    assert server.requests == []


def test_a_refusal_while_the_file_is_on_its_way_is_heard(serving: Serving, tmp_path: Path) -> None:
    path = tmp_path / "big"
    path.write_bytes(BODY)
    too_large = problem(413, "too_large", "at most 1 MB is taken")
    server = serving(lambda r: Answer(404) if r.method == "HEAD" else too_large)
    with pytest.raises(planish.PlanishError, match="at most 1 MB"):
        Driver("sync", server.url).call("upload", path)
