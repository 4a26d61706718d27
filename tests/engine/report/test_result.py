"""The job's result names each published file with its digest; the environment names no machine."""

from __future__ import annotations

import getpass
import hashlib
import json
import socket
from pathlib import Path

from planish.contract.spec import Target
from tests.engine.report.sample import sample_report
from worker.engine.report.environment import describe_environment
from worker.engine.report.result import result_of


def test_result_lists_files_with_size_digest_and_link(tmp_path: Path) -> None:
    files = {"model.onnx": b"\x08onnx", "report.json": b"{}", "load.py": b"pass"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    result = result_of(sample_report(), tmp_path, "job_1")
    assert result.model == "model.onnx"
    assert result.report == "/jobs/job_1/report"
    assert {a.name for a in result.artifacts} == set(files)
    for artifact in result.artifacts:
        content = files[artifact.name]
        assert artifact.size == len(content)
        assert artifact.sha256 == hashlib.sha256(content).hexdigest()
        assert artifact.href == f"/jobs/job_1/artifacts/{artifact.name}"
    assert result.artifacts[1].media_type == "application/vnd.onnx"
    assert result.summary.size_ratio == 3.639
    assert (result.summary.metric, result.summary.baseline) == ("accuracy", 0.918)


def test_pt2_is_the_model_when_there_is_no_onnx(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"PK")
    assert result_of(sample_report(), tmp_path, "job_1").model == "model.pt2"


def test_environment_names_versions_and_processor_but_no_machine() -> None:
    found = describe_environment(Target(threads=3), seed=5, precision="float32")
    assert (found["threads"], found["seed"], found["runtime"]) == (3, 5, "onnxruntime")
    versions = found["versions"]
    assert isinstance(versions, dict)
    assert {"torch", "onnxruntime", "numpy"} <= set(versions)
    text = json.dumps(found)
    assert f'"{socket.gethostname()}"' not in text
    assert getpass.getuser() not in text.split('"')
    assert str(Path.home()) not in text or Path.home() == Path("/")
    assert str(Path.cwd()) not in text
