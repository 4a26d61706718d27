"""One job through every command, against a real service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planish.contract.job import Event, Job
from planish.contract.report import Plan, Report
from tests.cli.conftest import RECIPE, Service, run
from tests.engine.digits import Digits
from tests.engine.load.parquet_files import encoded, images, labels, parquet

SCALE = ("--set", "data.preprocess.scale=0.0625")


@pytest.fixture(scope="module")
def job(service: Service, digits: Digits) -> Job:
    done = service.run(
        *("submit", digits.model, "--data", digits.data, "--test-data", digits.test_data),
        *("--recipe", RECIPE, "--set", 'outputs=["onnx","pt2"]', *SCALE),
        *("--name", "first", "--label", "from=test", "--idempotency-key", "the-first"),
    )
    assert done.code == 0, done.err
    waited = service.json("wait", done.out.strip(), "--timeout", 300)
    return Job.model_validate(waited)


@pytest.fixture(scope="module")
def folder(service: Service, job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("out") / "new"
    assert service.run("download", job.id, "-o", target).code == 0
    return target


def test_the_job_succeeds_with_its_name_and_labels(job: Job) -> None:
    assert (job.status, job.name, job.labels) == ("succeeded", "first", {"from": "test"})


def test_the_same_key_gives_the_same_job(service: Service, job: Job, digits: Digits) -> None:
    again = service.json(
        *("submit", digits.model, "--data", digits.data, "--test-data", digits.test_data),
        *("--recipe", RECIPE, "--set", 'outputs=["onnx","pt2"]', *SCALE),
        *("--name", "first", "--label", "from=test", "--idempotency-key", "the-first"),
    )
    assert again["id"] == job.id


def test_jobs_lists_it_and_filters(service: Service, job: Job) -> None:
    assert job.id in service.run("jobs").out
    assert [j["id"] for j in service.json("jobs", "--label", "from=test")] == [job.id]
    assert service.json("jobs", "--label", "from=nowhere") == []
    assert service.json("jobs", "--status", "failed", "--label", "from=test") == []


def test_show_names_result_and_artifacts(service: Service, job: Job) -> None:
    assert service.json("show", job.id)["result"]["model"] == "model.onnx"
    out = service.run("show", job.id).out
    assert "succeeded" in out
    assert "model.pt2" in out


def test_watch_replays_every_event(service: Service, job: Job) -> None:
    done = service.run("watch", job.id, "--json")
    events = [Event.model_validate_json(line) for line in done.out.splitlines()]
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (events[0].type, events[-1].type) == ("job.queued", "job.finished")
    plain = service.run("watch", job.id)
    assert plain.code == 0
    assert plain.out == ""


def test_report_shows_before_and_after(service: Service, job: Job, tmp_path: Path) -> None:
    report = Report.model_validate(service.json("report", job.id))
    assert report.ratios.size > 2
    page = tmp_path / "report.html"
    shown = service.run("report", job.id, "--html", page)
    assert "accuracy" in shown.out
    assert page.read_text().lstrip().lower().startswith("<!doctype html>")


def test_logs_are_the_childs_output(service: Service, job: Job) -> None:
    plain, followed = service.run("logs", job.id), service.run("logs", job.id, "-f")
    assert plain.code == followed.code == 0
    assert plain.out == followed.out
    assert service.json("logs", job.id)["logs"] == plain.out


def test_download_brings_every_artifact_once(service: Service, job: Job, folder: Path) -> None:
    assert job.result is not None
    names = {artifact.name for artifact in job.result.artifacts}
    assert {path.name for path in folder.iterdir()} == names
    before = (folder / "model.onnx").stat().st_mtime_ns
    assert service.run("download", job.id, "-o", folder).code == 0
    assert (folder / "model.onnx").stat().st_mtime_ns == before


def test_verify_runs_every_model_and_finds_changes(folder: Path) -> None:
    done = run("verify", folder, "--json")
    assert done.code == 0, done.out
    outcomes = {check["name"]: check["outcome"] for check in done.json["checks"]}
    assert outcomes["run model.onnx"] == outcomes["run model.pt2"] == "ok"
    model = folder / "model.onnx"
    whole = model.read_bytes()
    try:
        model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        changed = run("verify", folder, "--json")
        assert changed.code == 1
        assert not changed.json["ok"]
        model.unlink()
        assert run("verify", folder).code == 1
    finally:
        model.write_bytes(whole)


def test_plan_says_what_would_be_touched(service: Service, digits: Digits) -> None:
    recipe = '[{"op": "prune", "sparsity": 0.5}, {"op": "quantize"}]'
    arguments = ("plan", digits.model, "--data", digits.data, "--recipe", recipe)
    plan = Plan.model_validate(service.json(*arguments))
    assert [p.op for p in plan.passes] == ["prune", "quantize"]
    assert plan.after.params < plan.before.params
    assert "prune" in service.run(*arguments).out


def test_files_are_listed_uploaded_once_and_deleted(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "some.bin"
    path.write_bytes(b"some bytes")
    first, second = service.run("files", "upload", path), service.run("files", "upload", path)
    assert first.out == second.out
    file_id = first.out.strip()
    assert file_id in [item["id"] for item in service.json("files", "list")]
    assert service.run("files", "delete", file_id).code == 0
    assert service.run("files", "delete", file_id).code == 2


def test_a_job_that_fails_exits_with_4_and_shows_itself(service: Service, digits: Digits) -> None:
    recipe = '[{"op": "prune", "sparsity": 0.5, "ignore": ["*"]}]'
    job_id = service.run("submit", digits.model, "--recipe", recipe).out.strip()
    done = service.run("wait", job_id, "--timeout", 300, "--json")
    assert done.code == 4, done.err
    assert done.json["error"]["code"] == "nothing_changed"
    assert json.loads(done.err.splitlines()[-1])["code"] == "nothing_changed"
    assert service.run("watch", job_id).code == 4
    assert service.run("delete", job_id).code == 0
    assert service.run("show", job_id).code == 2


def test_cancel_and_timeout_have_their_exit_codes(service: Service, digits: Digits) -> None:
    recipe = '[{"op": "retrain", "train": {"epochs": 1000}}]'
    job_id = service.run(
        "submit", digits.model, "--data", digits.data, "--recipe", recipe, *SCALE
    ).out.strip()
    assert service.run("wait", job_id, "--timeout", 1).code == 124
    assert service.run("delete", job_id).code == 2
    assert service.run("cancel", job_id).code == 0
    assert service.run("wait", job_id, "--timeout", 60).code == 5


def test_unreachable_servers_exit_with_6() -> None:
    done = run("jobs", "--url", "http://127.0.0.1:9")
    assert done.code == 6
    assert "planish serve" in done.err


def as_parquet(arrays: Path, path: Path) -> Path:
    """Write digits as Hugging Face's datasets does: image files and class labels."""
    with np.load(arrays) as data:
        files = images([encoded(image[0]) for image in data["inputs"]])
        columns = {"image": files, "label": data["targets"]}
    return parquet(path, columns, {"image": {"_type": "Image"}, "label": labels(10)})


def test_optimize_makes_the_whole_trip(service: Service, digits: Digits, tmp_path: Path) -> None:
    data = as_parquet(digits.data, tmp_path / "data.parquet")
    sealed = as_parquet(digits.test_data, tmp_path / "test.parquet")
    done = service.run(
        *("optimize", digits.model, "--data", data, "--test-data", sealed),
        *("--recipe", "int8", *SCALE, "-o", tmp_path / "out"),
    )
    assert done.code == 0, done.err
    assert "smaller" not in done.err
    assert "accuracy" in done.out
    assert str(tmp_path / "out" / "report.html") in done.out.replace("\n", "")
    assert "prune" not in done.err


def test_optimize_json_keeps_stdout_to_the_result(
    service: Service, digits: Digits, tmp_path: Path
) -> None:
    found = service.json(
        *("optimize", digits.model, "--recipe", '[{"op": "simplify"}]', "-o", tmp_path / "out")
    )
    assert found["job"]["succeeded"]
    assert found["verification"]["ok"]
    Report.model_validate(found["report"])
