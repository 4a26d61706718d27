"""`planish verify`: what a folder claims is held against what its files do."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planish.contract.errors import MissingPart
from planish.contract.validation import spec_from
from planish.verify import Check, Outcome, verify
from tests.conftest import ROOT
from tests.exports import export_pt2
from tests.zoo import mlp
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent
from worker.engine.save.onnx import OPSET
from worker.engine.save.safetensors_file import save_safetensors

OUTPUTS = ["onnx", "openvino", "pt2", "safetensors"]
MODELS = ("model.onnx", "model.xml", "model.pt2", "model.safetensors")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts in four formats, with the data that they were measured on beside them."""
    pytest.importorskip("openvino")
    folder = tmp_path_factory.mktemp("verify")
    module, example = mlp()
    inputs = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    with torch.no_grad():
        targets = module(torch.from_numpy(inputs)).argmax(1).numpy()
    for name, rows in (("data", slice(0, 100)), ("test", slice(100, 200))):
        np.savez(folder / f"{name}.npz", inputs=inputs[rows], targets=targets[rows])
    given = JobInputs(
        None,
        spec_from(
            {
                "recipe": [{"op": "simplify"}],
                "outputs": OUTPUTS,
                "target": {"threads": 1},
            }
        ),
        licensed(export_pt2(module, example, folder / "in.pt2")),
        folder / "data.npz",
        folder / "test.npz",
    )
    optimize(given, folder / "out", Silent())
    return folder


def licensed(path: Path) -> Path:
    """Give an export a licence, as `torch.export.save(…, extra_files=…)` does."""
    torch.export.save(torch.export.load(path), path, extra_files={"license": "CC-BY-4.0"})
    return path


@pytest.fixture
def copy(job: Path, tmp_path: Path) -> Path:
    """A copy of the artifacts that a test may change."""
    return Path(shutil.copytree(job / "out", tmp_path / "out"))


def restate(folder: Path, *names: str) -> None:
    """Write the digests of changed files into the manifest, as a forger would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    known = {entry["name"]: entry for entry in manifest["files"]}
    for name in names:
        content = (folder / name).read_bytes()
        entry = known.setdefault(name, {"name": name})
        entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest["files"] = list(known.values())
    path.write_text(json.dumps(manifest))


def found(checks: tuple[Check, ...], name: str) -> Check:
    return next(check for check in checks if check.name == name)


def test_every_format_repeats_its_stored_outputs_and_the_metric_is_that_of_the_report(
    job: Path,
) -> None:
    done = verify(job / "out", job / "test.npz")
    assert done.ok, done
    for name in MODELS:
        check = found(done.checks, f"run {name}")
        assert check.outcome is Outcome.OK
        assert "0.00% of the norm from the outputs stored with it" in check.detail
        assert "cosine 1.000000 with the original" in check.detail
    assert "times the report's" in found(done.checks, "run model.onnx").detail
    metric = found(done.checks, "metric")
    assert metric.detail == "accuracy 1 on 100 samples; the report says 1"


def test_the_licence_of_the_upload_is_in_the_manifest_and_in_every_model(job: Path) -> None:
    manifest = json.loads((job / "out" / "manifest.json").read_text())
    assert manifest["source"] == {"metadata": {"license": "CC-BY-4.0"}}
    for name in MODELS:
        assert b"CC-BY-4.0" in (job / "out" / name).read_bytes(), name


def test_the_report_states_the_version_of_each_format(job: Path) -> None:
    formats = json.loads((job / "out" / "report.json").read_text())["reload"]["formats"]
    assert formats["model.onnx"] == f"ONNX opset {OPSET}, IR version 10"
    assert formats["model.xml"] == "OpenVINO IR 11"
    assert formats["model.pt2"].startswith("torch.export schema 8.")
    assert formats["model.safetensors"].startswith("safetensors with planish.graph 1, torch 2.")
    assert f"opset {OPSET}" in (job / "out" / "report.html").read_text()


def test_no_file_names_a_place_or_source_of_this_machine(job: Path) -> None:
    places = [str(place) for place in (Path.home(), job, ROOT, sys.prefix) if place != Path("/")]
    for path in (job / "out").iterdir():
        content = path.read_bytes()
        assert not [place for place in places if place.encode() in content], path.name
        if path.name in (*MODELS, "model.bin", "architecture.json"):
            assert b".py" not in content, path.name
            assert b"tests" not in content, path.name


def test_another_metric_than_the_reports_fails(job: Path, copy: Path, tmp_path: Path) -> None:
    with np.load(job / "test.npz") as stored:
        changed = (stored["targets"] + 1) % 10
        np.savez(tmp_path / "other.npz", inputs=stored["inputs"], targets=changed)
    for path in copy.glob("model.*"):
        if path.suffix != ".onnx":
            path.unlink()
    done = verify(copy, tmp_path / "other.npz")
    assert found(done.checks, "metric").outcome is Outcome.FAILED
    assert not done.ok


def test_a_model_put_in_the_place_of_another_is_noticed(copy: Path) -> None:
    from tests.engine.passes.models import canonical

    save_safetensors(canonical(*mlp(width=24)), copy / "model.safetensors")
    restate(copy, "model.safetensors", "architecture.json")
    check = found(verify(copy).checks, "run model.safetensors")
    assert check.outcome is Outcome.FAILED
    assert "of the norm away from those stored with it" in check.detail


def test_native_code_is_not_run_unless_asked_for(copy: Path) -> None:
    for name in MODELS:
        (copy / name).unlink()
    (copy / "model.aoti.pt2").write_bytes(b"\x7fELF")
    restate(copy, "model.aoti.pt2")
    check = found(verify(copy).checks, "run model.aoti.pt2")
    assert (check.outcome, "--native" in check.detail) == (Outcome.SKIPPED, True)
    assert found(verify(copy, native=True).checks, check.name).outcome is Outcome.FAILED


def test_missing_data_is_said(copy: Path) -> None:
    with pytest.raises(MissingPart, match=r"nowhere\.npz"):
        verify(copy, copy / "nowhere.npz")
