"""From a report and the published files to the `result` of the job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from planish.contract.job import Artifact, Result, Summary
from planish.contract.report import Report
from planish.contract.spec import FORMATS, Output
from planish.contract.wire import media_type_of

MODEL_FILES: dict[Output, str] = {
    "onnx": "model.onnx",
    "openvino": "model.xml",
    "pt2": "model.pt2",
    "safetensors": "model.safetensors",
    "aotinductor": "model.aoti.pt2",
}


def main_output(outputs: Iterable[Output], runtime: str) -> Output:
    """Return the format that stands for the job: the target runtime's where it was asked for."""
    asked = tuple(outputs)
    own = FORMATS[runtime]
    return own if own in asked else next(name for name in MODEL_FILES if name in asked)


def result_of(report: Report, out_dir: Path, job_id: str) -> Result:
    """Return the result of a succeeded job: its artifacts with digests and the one-line summary.

    Args:
        report: the evidence.
        out_dir: the folder of the published artifacts.
        job_id: used in the links.
    """
    names = sorted(path.name for path in out_dir.iterdir() if path.is_file())
    made = [output for output, name in MODEL_FILES.items() if name in names]
    model = MODEL_FILES[main_output(made, report.optimized.runtime)]
    return Result(
        model=model,
        artifacts=tuple(_artifact(out_dir / name, job_id) for name in names),
        report=f"/jobs/{job_id}/report",
        summary=summary_of(report),
    )


def summary_of(report: Report) -> Summary:
    """Return the figures of the first line: ratios are baseline / optimized."""
    return Summary(
        size_ratio=report.ratios.size,
        latency_ratio=report.ratios.latency,
        metric=report.optimized.metric.name,
        baseline=report.baseline.metric.value,
        optimized=report.optimized.metric.value,
    )


def _artifact(path: Path, job_id: str) -> Artifact:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Artifact(
        name=path.name,
        size=path.stat().st_size,
        sha256=digest,
        media_type=media_type_of(path.name),
        href=f"/jobs/{job_id}/artifacts/{path.name}",
    )
