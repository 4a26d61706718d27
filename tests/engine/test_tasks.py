"""Whole jobs of tasks beyond classification: targets in, metric and bound out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import JsonValue

from planish.contract.report import Report
from planish.contract.validation import spec_from
from tests.exports import export_pt2
from tests.gate.files import npz
from tests.zoo import mlp, tied
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent


def job(folder: Path, task: str, recipe: list[JsonValue], model: Path, data: Path) -> Report:
    spec = spec_from(
        {
            "data": {"task": task},
            "recipe": recipe,
            "target": {"threads": 1},
            "outputs": ["onnx", "pt2"] if recipe[-1]["mode"] == "weight_only" else ["onnx"],
        }
    )
    return optimize(JobInputs(None, spec, model, data), folder / "out", Silent())


def test_a_language_model_without_targets_is_trained_and_packed(tmp_path: Path) -> None:
    """Sequences count up by one: something that this network can learn."""
    module, example = tied()
    starts = np.random.default_rng(0).integers(0, 20, 600)
    ids = (starts[:, None] + np.arange(7)) % 20
    report = job(
        tmp_path,
        "language_modeling",
        [
            {"op": "retrain", "train": {"epochs": 3, "lr": 0.02, "optimizer": "adam"}},
            {"op": "quantize", "mode": "weight_only"},
        ],
        export_pt2(module, example, tmp_path / "m.pt2"),
        npz(tmp_path / "a.npz", ids=ids),
    )
    before, after = report.baseline.metric, report.optimized.metric
    assert (before.name, before.better, before.total) == ("perplexity", "lower", None)
    assert after.value < 0.8 * before.value
    assert report.certificate.unit == "relative"
    assert report.certificate.n == 120
    assert report.certificate.upper_bound == 0
    assert report.reload.ok
    assert "perplexity" in (tmp_path / "out" / "report.html").read_text()
    assert not any("accurate" in warning for warning in report.warnings)


@pytest.mark.parametrize("task", ["regression", "embedding"])
def test_numbers_and_pairs_are_judged_by_their_metric(task: str, tmp_path: Path) -> None:
    module, example = mlp()
    rows = np.random.default_rng(1).normal(size=(600, 16)).astype(np.float32)
    with torch.no_grad():
        answers = module(torch.from_numpy(rows)).numpy()
    targets = answers + 0.1
    if task == "embedding":
        one, two = answers[::2], answers[1::2]
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
        targets = np.repeat((one * two).sum(1) / norms, 2)
    report = job(
        tmp_path,
        task,
        [{"op": "quantize", "mode": "dynamic"}],
        export_pt2(module, example, tmp_path / "m.pt2"),
        npz(tmp_path / "a.npz", inputs=rows, targets=targets),
    )
    before, after = report.baseline.metric, report.optimized.metric
    if task == "regression":
        assert before.name == "mse"
        assert before.value == pytest.approx(0.01, rel=1e-3)
        assert after.value == pytest.approx(0.01, rel=0.2)
        assert report.certificate.n == 120
    else:
        assert before.name == "spearman"
        assert before.value == pytest.approx(1, abs=1e-6)
        assert 0.98 < after.value < 1
        assert report.certificate.n == 60
        assert report.certificate.outcome == "not_enough_data"
