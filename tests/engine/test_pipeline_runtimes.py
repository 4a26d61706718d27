"""Whole jobs for targets other than ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import JsonValue

from planish.contract.report import Report
from planish.contract.validation import spec_from
from planish.verify import Outcome, verify
from tests.exports import export_pt2
from tests.zoo import mlp, small_residual_cnn
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent
from worker.engine.report.html import render
from worker.engine.report.result import result_of

pytest.importorskip("openvino")
ALWAYS = {
    *("report.json", "report.html", "manifest.json"),
    *("load.py", "requirements.txt", "reference.npz"),
}


def run(model: Path, out: Path, recipe: list[JsonValue], **more: JsonValue) -> Report:
    """Run a job without data."""
    return optimize(JobInputs(None, spec_from({"recipe": recipe, **more}), model), out, Silent())


def test_an_int8_job_for_openvino_is_measured_and_published_as_ir(tmp_path: Path) -> None:
    model, out = export_pt2(*small_residual_cnn(), tmp_path / "in.pt2"), tmp_path / "out"
    target: JsonValue = {"runtime": "openvino", "threads": 1, "tune": True}
    report = run(model, out, [{"op": "quantize"}], target=target, outputs=["openvino", "onnx"])
    names = {path.name for path in out.iterdir()}
    assert names == ALWAYS | {"model.xml", "model.bin", "model.onnx"}
    assert (report.optimized.runtime, report.optimized.precision) == ("openvino", "float32")
    assert report.optimized.size_bytes == sum(
        (out / name).stat().st_size for name in ("model.xml", "model.bin")
    )
    assert "openvino" in report.environment["versions"]
    assert not any("in floats" in warning for warning in report.warnings)
    assert report.passes[0].facts["weight_scales"]
    assert result_of(report, out, "job_1").model == "model.xml"
    assert report.tuning is not None
    assert "Settings of the runtime" in render(report)
    checks = {check.name: check.outcome for check in verify(out).checks}
    assert checks["run model.xml"] is checks["run model.onnx"] is Outcome.OK


def test_ir_whose_weights_were_changed_is_not_run(tmp_path: Path) -> None:
    model, out = export_pt2(*mlp(), tmp_path / "in.pt2"), tmp_path / "out"
    target: JsonValue = {"runtime": "openvino", "threads": 1}
    run(model, out, [{"op": "simplify"}], target=target)
    weights = out / "model.bin"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    found = verify(out)
    assert not found.ok
    assert not any(check.name == "run model.xml" for check in found.checks)


def test_a_job_for_torch_is_measured_in_torch(tmp_path: Path) -> None:
    model, out = export_pt2(*mlp(), tmp_path / "in.pt2"), tmp_path / "out"
    report = run(model, out, [{"op": "quantize"}], target={"runtime": "torch", "threads": 1})
    assert {path.name for path in out.iterdir()} == ALWAYS | {"model.pt2"}
    assert report.optimized.runtime == "torch"
    assert report.optimized.size_bytes == (out / "model.pt2").stat().st_size
    assert any("in floats" in warning for warning in report.warnings)
