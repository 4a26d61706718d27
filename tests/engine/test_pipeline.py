"""Whole jobs on real files: what goes in, what comes out, and what the evidence says about it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import JsonValue

from planish.contract.errors import InvalidModel, InvalidRecipe, OutOfMemory
from planish.contract.job import EventType
from planish.contract.report import Report
from planish.contract.spec import Spec
from planish.contract.validation import spec_from
from tests.engine.digits import SCALE, Digits, trained_digits
from tests.exports import export_pt2
from tests.zoo import mlp, small_residual_cnn
from worker.engine.pipeline import JobInputs, make_plan, memory_watched, optimize
from worker.engine.progress import Silent
from worker.engine.report.result import result_of

RECIPE: list[JsonValue] = [
    {"op": "prune", "sparsity": 0.25, "round_to": 4},
    {"op": "distill", "train": {"epochs": 4, "lr": 0.02, "batch_size": 64}},
    {"op": "quantize", "samples": 256},
]
ARTIFACTS = {
    *("model.onnx", "model.pt2", "report.json", "report.html", "manifest.json", "load.py"),
    *("requirements.txt", "reference.npz"),
}


@dataclass
class Recorder:
    """Keeps what the engine told."""

    stages: list[tuple[str, int, int]] = field(default_factory=list)
    fractions: list[float] = field(default_factory=list)
    events: list[tuple[EventType, dict[str, JsonValue]]] = field(default_factory=list)

    def stage(self, name: str, step: int, steps: int) -> None:
        self.stages.append((name, step, steps))

    def update(self, fraction: float, message: str) -> None:
        assert message
        self.fractions.append(fraction)

    def event(self, kind: EventType, data: dict[str, JsonValue]) -> None:
        json.dumps(data)
        self.events.append((kind, data))


@dataclass(frozen=True)
class Done:
    """A finished job."""

    inputs: JobInputs
    out: Path
    report: Report
    told: Recorder


def spec(recipe: list[JsonValue], **more: JsonValue) -> Spec:
    data = {"preprocess": {"scale": SCALE}}
    return spec_from({"data": data, "recipe": recipe, "target": {"threads": 1}, **more})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return trained_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def job(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Done:
    inputs = JobInputs(
        job_id="job_1",
        spec=spec(RECIPE, outputs=["onnx", "pt2"]),
        model=digits.model,
        data=digits.data,
        test_data=digits.test_data,
    )
    out, told = tmp_path_factory.mktemp("out"), Recorder()
    return Done(inputs, out, optimize(inputs, out, told), told)


def answers(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (name,) = (value.name for value in session.get_inputs())
    return session.run(None, {name: images})[0].argmax(1)


def test_folder_holds_exactly_the_artifacts(job: Done) -> None:
    assert {path.name for path in job.out.iterdir()} == ARTIFACTS


def test_manifest_names_every_file_with_its_digest(job: Done) -> None:
    manifest = json.loads((job.out / "manifest.json").read_text())
    listed = {entry["name"]: entry for entry in manifest["files"]}
    assert set(listed) == ARTIFACTS - {"manifest.json"}
    for name, entry in listed.items():
        content = (job.out / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["size"] == len(content)


def test_report_on_disk_is_the_report(job: Done) -> None:
    assert Report.model_validate_json((job.out / "report.json").read_bytes()) == job.report
    assert job.report.job_id == "job_1"


def test_counts_are_those_of_the_published_model(job: Done, digits: Digits) -> None:
    test = np.load(digits.test_data)
    images, labels = test["inputs"] * np.float32(SCALE), test["targets"]
    right = int((answers(job.out / "model.onnx", images) == labels).sum())
    assert job.report.optimized.metric.correct == right
    assert job.report.optimized.metric.total == len(labels) == job.report.certificate.n
    with torch.no_grad():
        before = digits.module(torch.from_numpy(images)).argmax(1).numpy()
    assert job.report.baseline.metric.correct == int((before == labels).sum())


def test_model_is_smaller_and_still_good(job: Done) -> None:
    report = job.report
    assert report.ratios.size > 3
    assert report.ratios.macs is not None
    assert report.ratios.macs > 1.3
    assert report.optimized.metric.value is not None
    assert report.optimized.metric.value > 0.9
    assert report.optimized.size_bytes == (job.out / "model.onnx").stat().st_size


def test_certificate_makes_no_claim_without_budget(job: Done) -> None:
    certificate = job.report.certificate
    assert certificate.max_drop is None
    assert certificate.outcome == "point_estimate_only"
    assert certificate.observed_drop is not None
    assert certificate.upper_bound is not None
    assert certificate.observed_drop < certificate.upper_bound


def test_stages_and_events_come_in_order(job: Done) -> None:
    names = [name for name, _, _ in job.told.stages]
    ops = ["prune", "distill", "quantize"]
    assert names == ["load", "baseline", *ops, "export", "measure", "reload", "report"]
    assert [step for _, step, _ in job.told.stages] == list(range(1, 10))
    assert {steps for _, _, steps in job.told.stages} == {9}
    assert all(0 <= fraction <= 1 for fraction in job.told.fractions)
    kinds = [kind for kind, _ in job.told.events]
    assert kinds.count(EventType.PASS_STARTED) == kinds.count(EventType.PASS_FINISHED) == 3
    assert kinds.count(EventType.EPOCH) == len(job.report.training) == 4
    assert kinds.count(EventType.WARNING) == len(job.report.warnings)


def test_layers_tell_shape_type_and_scale(job: Done) -> None:
    layers = {layer.name: layer for layer in job.report.layers}
    assert next(iter(layers)) == "conv1"
    assert {layer.dtype_after for layer in layers.values()} == {"int8"}
    thinned = layers["layer2.conv2"]
    assert thinned.shape_before == "32×32×3×3"
    assert thinned.params_after is not None
    assert thinned.params_after < thinned.params_before
    assert thinned.weight_scale is not None
    assert thinned.weight_scale > 0


def test_reload_ran_and_latency_was_paired(job: Done) -> None:
    assert job.report.reload.ok
    rounds = job.report.latency_rounds
    assert len(rounds["baseline"]) == len(rounds["optimized"]) >= 5
    assert job.report.optimized.latency_ms is not None
    assert job.report.optimized.peak_memory_bytes


def test_loader_runs_in_a_bare_process(job: Done) -> None:
    done = subprocess.run(
        [sys.executable, "load.py"], cwd=job.out, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "output" in done.stdout


def test_artifacts_name_no_path_of_this_machine(job: Done, digits: Digits) -> None:
    for path in job.out.iterdir():
        content = path.read_bytes()
        for place in (Path.home(), digits.model.parent, job.out, Path(__file__).parents[2]):
            if place != Path("/"):
                assert str(place).encode() not in content, (path.name, place)


def test_result_summarizes_the_job(job: Done) -> None:
    result = result_of(job.report, job.out, "job_1")
    assert result.model == "model.onnx"
    assert {artifact.name for artifact in result.artifacts} == ARTIFACTS
    assert result.summary.optimized == job.report.optimized.metric.value


def test_same_job_gives_the_same_model(job: Done, tmp_path: Path) -> None:
    optimize(job.inputs, tmp_path / "again", Silent())
    again = (tmp_path / "again" / "model.onnx").read_bytes()
    assert again == (job.out / "model.onnx").read_bytes()


def test_without_data_quality_is_agreement_and_the_report_says_so(
    digits: Digits, tmp_path: Path
) -> None:
    inputs = JobInputs(None, spec([{"op": "quantize"}], outputs=["pt2"]), digits.model)
    report = optimize(inputs, tmp_path / "out", Silent())
    assert report.optimized.metric.name == "agreement"
    assert report.certificate.outcome == "not_enough_data"
    assert report.certificate.n == 0
    assert any("No data came" in text for text in report.warnings)
    assert report.optimized.size_bytes == (tmp_path / "out" / "model.pt2").stat().st_size
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_plan_names_what_every_pass_would_do(job: Done) -> None:
    plan = make_plan(job.inputs)
    assert [each.op for each in plan.passes] == ["prune", "distill", "quantize"]
    assert plan.after.params < plan.before.params
    assert plan.after.macs == job.report.optimized.macs
    assert plan.after.size_bytes < plan.before.size_bytes / 3
    assert plan.inputs == ({"name": "x", "shape": ["batch", 1, 8, 8], "dtype": "float32"},)


def test_training_without_data_is_refused_with_the_reason(digits: Digits, tmp_path: Path) -> None:
    inputs = JobInputs(None, spec([{"op": "distill"}]), digits.model)
    with pytest.raises(InvalidRecipe, match="send a data file"):
        optimize(inputs, tmp_path, Silent())


@pytest.mark.parametrize("wrong", ["classes", "inputs"])
def test_teacher_that_does_not_fit_is_refused(digits: Digits, tmp_path: Path, wrong: str) -> None:
    net = small_residual_cnn(classes=7) if wrong == "classes" else mlp()
    teacher = export_pt2(*net, tmp_path / "teacher.pt2")
    inputs = JobInputs(None, spec([{"op": "distill"}]), digits.model, digits.data, teacher=teacher)
    with pytest.raises(InvalidModel, match="teacher"):
        optimize(inputs, tmp_path / "out", Silent())


def test_memory_that_runs_out_has_a_code_of_its_own() -> None:
    with pytest.raises(OutOfMemory, match="batch_size"), memory_watched():
        torch.empty(1 << 55, dtype=torch.uint8)


def test_nothing_stays_in_the_temporary_folder(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    inputs = JobInputs(None, spec([{"op": "retrain"}]), digits.model)
    with pytest.raises(InvalidRecipe):
        optimize(inputs, tmp_path / "out", Silent())
    assert not list(scratch.iterdir())


def test_resnet20_from_a_checkpoint_keeps_its_accuracy_in_int8(
    shared_data: Path, tmp_path: Path
) -> None:
    cifar = np.load(shared_data / "cifar10_public.npz")
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", inputs=cifar[f"x_{part}"], targets=cifar[f"y_{part}"])
    job = spec_from(
        {
            "model": {
                "architecture": {
                    "library": "planish",
                    "name": "cifar_resnet",
                    "config": {"depth": 20},
                }
            },
            "data": {
                "preprocess": {
                    "scale": 1 / 255,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.229, 0.224, 0.225],
                }
            },
            "recipe": [{"op": "quantize", "samples": 512}],
        }
    )
    inputs = JobInputs(
        None,
        job,
        shared_data / "resnet20-12fca82f.th",
        tmp_path / "train.npz",
        tmp_path / "test.npz",
    )
    report = optimize(inputs, tmp_path / "out", Silent())
    assert report.baseline.metric.correct == 1836
    assert report.certificate.observed_drop is not None
    assert report.certificate.observed_drop <= 0.003
    assert report.ratios.size >= 3.1
