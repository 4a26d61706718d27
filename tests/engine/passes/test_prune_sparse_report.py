"""What zeros are worth is shown: in compressed bytes, and plainly not in speed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zstandard

from planish.cli.comparison import comparison_rows
from planish.contract.recipe import Prune
from planish.contract.report import Report
from planish.contract.spec import Spec
from tests.engine.digits import trained_digits
from tests.engine.report.sample import sample_report
from worker.engine.measure.size import (
    ParameterCount,
    compressed_bytes,
    is_worth_compressing,
)
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent
from worker.engine.report import words
from worker.engine.report.html import render
from worker.engine.report.remarks import remarks


def sparse_report() -> Report:
    """Return the report of a model that only compresses better."""
    report = sample_report()
    sides = {
        name: getattr(report, name).model_copy(update={"compressed_bytes": size})
        for name, size in (("baseline", 1_000_000), ("optimized", 250_000))
    }
    ratios = report.ratios.model_copy(update={"size": 1.0, "latency": 1.0, "compressed": 4.0})
    return report.model_copy(update={**sides, "ratios": ratios})


def test_a_model_that_compresses_better_is_no_failure_and_no_faster():
    report = sparse_report()
    said = " ".join(remarks(report, None, "labelled", ()))
    assert "as large as the original's; compressed it is 4.0× smaller" in said
    assert "not measurably faster" in said
    assert words.tone(report) == "mixed"
    assert "4.0× smaller compressed" in words.headline(report)


def test_compressed_sizes_stand_in_both_comparisons_where_they_say_more():
    report = sparse_report()
    assert "Compressed (zstd)" in render(report)
    (row,) = (row for row in comparison_rows(report) if row[0] == "compressed")
    assert row[3] == "4.00x less"
    plain = sample_report()
    assert "Compressed (zstd)" not in render(plain)
    assert not [row for row in comparison_rows(plain) if row[0] == "compressed"]


def test_compressed_bytes_are_those_of_zstd_at_level_19(tmp_path: Path):
    values = np.random.default_rng(0).normal(size=300_000).astype(np.float32)
    values[::2] = 0.0
    path = tmp_path / "model.onnx"
    path.write_bytes(values.tobytes())
    expected = len(zstandard.ZstdCompressor(level=19).compress(path.read_bytes()))
    assert abs(compressed_bytes(path) - expected) < 100
    assert expected < 0.6 * path.stat().st_size


def test_large_files_are_only_compressed_for_their_zeros(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.touch()
    dense, sparse = ParameterCount(100, 100), ParameterCount(100, 50)
    for size, worth in ((1_000_000, (True, True)), (9_000_000, (False, True))):
        with path.open("r+b") as file:
            file.truncate(size)
        assert (is_worth_compressing(path, dense), is_worth_compressing(path, sparse)) == worth


def test_a_whole_job_reports_zeros_by_layer_bytes_and_plain_words(tmp_path: Path):
    digits = trained_digits(tmp_path, epochs=1)
    out = tmp_path / "out"
    out.mkdir()
    asked = Prune(structure="unstructured", sparsity=0.8, samples=64)
    spec = Spec.model_validate(
        {
            "data": {"preprocess": {"scale": 1 / 16}},
            "recipe": [asked.model_dump(exclude_none=True)],
            "target": {"threads": 1},
        }
    )
    inputs = JobInputs(None, spec, digits.model, digits.data, digits.test_data)
    report = optimize(inputs, out, Silent())
    before, after = report.baseline, report.optimized
    assert after.compressed_bytes == compressed_bytes(out / "model.onnx")
    assert before.compressed_bytes / after.compressed_bytes > 2
    assert report.ratios.zeros_tell
    assert after.nonzero_params < 0.25 * before.nonzero_params
    shares = report.passes[0].facts["nonzero_share"]
    assert all(abs(share - 0.2) < 0.002 for share in shares.values())
    assert any("computes zeros like any other number" in warning for warning in report.warnings)
