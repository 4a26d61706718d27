"""Every task from every layout of data: the same samples, and whole jobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import JsonValue
from safetensors.numpy import save_file

from planish.contract.report import Report
from planish.contract.spec import Task
from planish.contract.validation import spec_from
from tests.engine.load.parquet_files import encoded, images, labels, parquet
from tests.exports import export_pt2
from tests.gate.files import npz
from tests.transformers_zoo import tiny_bert, tiny_llama
from tests.zoo import mlp, small_residual_cnn, tied
from worker.engine.load import load_model
from worker.engine.load.data import load_splits
from worker.engine.load.splits import Splits
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent

RNG = np.random.default_rng(0)
COUNT = 120
DIGITS = RNG.integers(0, 256, (COUNT, 1, 8, 8), dtype=np.uint8)
NUMBERS = RNG.normal(size=(COUNT, 16)).astype(np.float32)
CASES = {
    "images": ("classification", small_residual_cnn, DIGITS, np.arange(COUNT) % 10),
    "numbers": ("regression", mlp, NUMBERS, RNG.normal(size=(COUNT, 10)).astype(np.float32)),
    "tokens": ("language_modeling", tied, RNG.integers(0, 20, (COUNT, 7)), None),
    "references": ("embedding", mlp, NUMBERS, RNG.normal(size=(COUNT, 10)).astype(np.float32)),
    "pairs": ("embedding", mlp, NUMBERS, np.repeat(RNG.normal(size=COUNT // 2), 2)),
}


def written(folder: Path, layout: str, inputs: np.ndarray, targets: np.ndarray | None) -> Path:
    """Write one data set in a layout."""
    path = folder / f"data.{layout}"
    arrays = {"inputs": inputs} | ({} if targets is None else {"targets": targets})
    if layout == "npz":
        return npz(path, **arrays)
    if layout == "safetensors":
        save_file(arrays, path)
        return path
    columns: dict[str, object] = {"inputs": inputs.tolist()}
    if inputs.ndim == 4:
        columns = {"image": images([encoded(image[0]) for image in inputs])}
    if inputs.dtype == np.int64:
        columns = {"input_ids": inputs.tolist()}
    if targets is not None:
        columns["label"] = targets.tolist() if targets.ndim > 1 else targets
    return parquet(path, columns, row_group_size=50)


def splits_of(case: str, layout: str, folder: Path, model: Path) -> Splits:
    task, _, inputs, targets = CASES[case]
    spec = spec_from({"data": {"task": task}, "recipe": [{"op": "simplify"}]})
    path = written(folder, layout, inputs, targets)
    splits = load_splits(spec, load_model(model, spec.model), path, None)
    assert splits is not None
    return splits


@pytest.mark.parametrize("case", CASES)
def test_every_layout_gives_the_same_samples_in_the_same_parts(case: str, tmp_path: Path) -> None:
    module, example = CASES[case][1]()
    model = export_pt2(module, example, tmp_path / "m.pt2")
    first, *others = (
        splits_of(case, layout, tmp_path, model) for layout in ("npz", "safetensors", "parquet")
    )
    for splits in others:
        for part in ("train", "calibration", "validation", "sealed"):
            one, other = getattr(first, part), getattr(splits, part)
            assert (one.rows == other.rows).all()
            (x, y), (x2, y2) = one.prepare(np.arange(len(one))), other.prepare(np.arange(len(one)))
            assert all(map(torch.equal, x, x2))
            assert y is y2 is None or torch.equal(y, y2)
            assert one.scores is other.scores is None or (one.scores == other.scores).all()


def job(folder: Path, task: Task, recipe: JsonValue, model: Path, data: Path) -> Report:
    spec = spec_from({"data": {"task": task}, "recipe": recipe, "target": {"threads": 1}})
    return optimize(JobInputs(None, spec, model, data), folder / "out", Silent())


def test_a_bert_is_trained_on_rows_of_tokens_of_all_lengths(tmp_path: Path) -> None:
    """The class is the first token's; everything after it is noise and padding."""
    module, example = tiny_bert()
    classes = np.arange(400) % 4
    rows = [[c, *RNG.integers(4, 40, RNG.integers(1, 11)).tolist()] for c in classes]
    data = parquet(
        tmp_path / "a.parquet", {"input_ids": rows, "label": classes}, {"label": labels(4)}
    )
    train = {"epochs": 4, "lr": 0.01, "optimizer": "adam", "batch_size": 32}
    report = job(
        tmp_path,
        "classification",
        [{"op": "retrain", "train": train}, {"op": "quantize", "mode": "dynamic"}],
        export_pt2(module, example, tmp_path / "m.pt2"),
        data,
    )
    assert report.optimized.metric.name == "accuracy"
    assert report.optimized.metric.total == 80
    assert report.optimized.metric.value > max(0.6, report.baseline.metric.value)
    assert report.reload.ok


def test_a_llama_is_judged_by_its_perplexity_over_windows_of_long_rows(tmp_path: Path) -> None:
    module, example = tiny_llama()
    with torch.no_grad():
        module.embed.weight.mul_(0.01)  # it knows nothing: any token is as likely as another
    rows = [RNG.integers(0, 48, size).tolist() for size in RNG.integers(0, 60, 60)]
    report = job(
        tmp_path,
        "language_modeling",
        [{"op": "quantize", "mode": "dynamic"}],
        export_pt2(module, example, tmp_path / "m.pt2"),
        parquet(tmp_path / "a.parquet", {"input_ids": rows}),
    )
    before, after = report.baseline.metric, report.optimized.metric
    windows = [row[at : at + 10] for row in rows for at in range(0, len(row), 10)]
    count = sum(len(window) > 1 for window in windows)
    assert report.certificate.n == round(0.2 * count)
    assert before.name == "perplexity"
    assert before.value == pytest.approx(48, rel=0.05)
    assert after.value == pytest.approx(before.value, rel=0.01)
