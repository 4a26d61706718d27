"""Whole jobs on an uploaded ONNX graph: the same evidence as for any other model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from pydantic import JsonValue

from planish.contract.errors import NotForOnnx
from planish.contract.report import Report
from planish.contract.spec import Spec
from planish.contract.validation import spec_from
from tests.engine.digits import SCALE
from tests.engine.runtime_model.conftest import Trained
from worker.engine.pipeline import JobInputs, make_plan, optimize
from worker.engine.progress import Silent

RECIPE: list[JsonValue] = [{"op": "simplify"}, {"op": "quantize", "samples": 128}]


def inputs(trained: Trained, model: Path, **more: JsonValue) -> JobInputs:
    given: dict[str, JsonValue] = {
        "data": {"preprocess": {"scale": SCALE}},
        "recipe": RECIPE,
        "target": {"threads": 1},
        **more,
    }
    spec: Spec = spec_from(given)
    return JobInputs("job_1", spec, model, trained.digits.data, trained.digits.test_data)


@pytest.fixture(scope="module")
def done(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    out = tmp_path_factory.mktemp("out")
    job = inputs(trained, trained.path, outputs=["onnx", "openvino"])
    return out, optimize(job, out, Silent())


def test_the_report_is_as_complete_as_any(done: tuple[Path, Report]) -> None:
    _, report = done
    for side in (report.baseline, report.optimized):
        assert side.latency_ms is not None
        assert side.metric.name == "accuracy"
        assert side.metric.total == 450
        assert side.macs == 533_824
        assert side.peak_memory_bytes
    assert report.ratios.size > 2
    assert report.ratios.latency
    assert report.fidelity.sqnr_db is not None
    assert report.fidelity.sqnr_db > 25
    assert report.certificate.outcome == "point_estimate_only"
    assert report.certificate.n == 450
    assert report.reload.ok
    assert [done.op for done in report.passes] == ["simplify", "quantize"]
    assert [layer.dtype_after for layer in report.layers] == ["int8"] * 7
    assert not [text for text in report.warnings if "in floats" in text]


def test_the_folder_holds_both_outputs_and_what_travels_along(done: tuple[Path, Report]) -> None:
    out, report = done
    names = {path.name for path in out.iterdir()}
    assert {"model.onnx", "model.xml", "model.bin", "load.py", "manifest.json"} <= names
    manifest = json.loads((out / "manifest.json").read_text())
    assert {file["name"] for file in manifest["files"]} == names - {"manifest.json"}
    assert Report.model_validate_json((out / "report.json").read_bytes()) == report


def test_counts_are_those_of_the_published_file(
    done: tuple[Path, Report], trained: Trained
) -> None:
    out, report = done
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    test = np.load(trained.digits.test_data)
    images = test["inputs"] * np.float32(SCALE)
    answers = session.run(None, {"input": images})[0].argmax(-1)
    assert report.optimized.metric.correct == int((answers == test["targets"]).sum())


def test_a_batch_of_one_is_evaluated_on_all_samples(trained: Trained, tmp_path: Path) -> None:
    report = optimize(inputs(trained, trained.fixed), tmp_path / "out", Silent())
    assert report.optimized.metric.total == 450
    assert (tmp_path / "out" / "model.onnx").exists()


def test_an_ir_is_made_and_measured_in_openvino(trained: Trained, tmp_path: Path) -> None:
    job = inputs(
        trained,
        trained.path,
        recipe=[{"op": "quantize", "samples": 64, "algorithm": "rtn"}],
        target={"runtime": "openvino", "threads": 1},
    )
    report = optimize(job, tmp_path / "out", Silent())
    assert report.optimized.runtime == "openvino"
    assert not [text for text in report.warnings if "in floats" in text]
    assert (tmp_path / "out" / "model.xml").exists()


def test_a_plan_says_what_each_pass_would_touch(trained: Trained) -> None:
    job = inputs(trained, trained.path, recipe=[{"op": "simplify"}, {"op": "quantize"}])
    plan = make_plan(job)
    assert [item.op for item in plan.passes] == ["simplify", "quantize"]
    assert plan.passes[1].layers_changed == 7
    assert plan.before.macs == plan.after.macs == 533_824
    assert plan.after.size_bytes < 0.3 * plan.before.size_bytes
    assert plan.inputs == ({"name": "input", "shape": ["batch", 1, 8, 8], "dtype": "float32"},)


def test_what_needs_torch_is_refused_by_the_engine_too(trained: Trained) -> None:
    with pytest.raises(NotForOnnx, match="prune needs a network that torch can open"):
        make_plan(inputs(trained, trained.path, recipe=[{"op": "prune", "sparsity": 0.5}]))
