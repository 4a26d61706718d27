"""The metric of the optimized model, measured anew on test data."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ValidationError

from planish.contract.report import Metric, Report
from planish.contract.spec import FORMATS, Spec
from planish.verify.check import Check, Outcome
from planish.verify.process import ask

NAME = "metric"
SLACK = 0.01
"""How far a metric may be from the report's: other processors round in other places."""

_FILES = {"onnx": "model.onnx", "openvino": "model.xml", "pt2": "model.pt2"}


class Question(BaseModel):
    """What is to be measured."""

    model: Path
    data: Path
    spec: Spec


class Answer(BaseModel):
    """The metric, and on how many samples; or why there is none."""

    metric: Metric | None = None
    samples: int = 0
    error: str | None = None


def metric_check(
    folder: Path, data: Path, spec: Spec | None, report: Report | None, models: list[str]
) -> Check:
    """Measure the metric of the file that the report is about, on labelled samples."""
    name = _FILES[FORMATS[spec.target.runtime]] if spec is not None else ""
    if spec is None or report is None or name not in models:
        return _skipped("the folder lacks the job's spec, its report, or the file that it measured")
    missing = next((n for n in ("torch", "onnxruntime") if find_spec(n) is None), None)
    if missing is not None:
        return _skipped(f"{missing} is not installed: pip install 'planish[worker]'")
    question = Question(model=(folder / name).resolve(), data=data.resolve(), spec=spec)
    said = ask("worker.engine.remeasure", question.model_dump_json())
    try:
        answer = Answer.model_validate_json(said)
    except ValidationError:
        answer = Answer(error=said)
    if answer.metric is None:
        return Check(name=NAME, outcome=Outcome.FAILED, detail=answer.error or said)
    return _held(answer.metric, answer.samples, report.optimized.metric)


def _held(found: Metric, samples: int, stated: Metric) -> Check:
    value = math.nan if found.value is None else found.value
    words = f"{found.name} {value:.6g} on {samples} samples"
    if stated.name != found.name or stated.value is None:
        return Check(name=NAME, outcome=Outcome.OK, detail=f"{words}; the report has none")
    words += f"; the report says {stated.value:.6g}"
    if stated.total is not None and stated.total != found.total:
        detail = f"{words} of other samples: send the test data that the job had"
        return Check(name=NAME, outcome=Outcome.OK, detail=detail)
    near = abs(value - stated.value) <= SLACK * max(1.0, abs(stated.value))
    return Check(name=NAME, outcome=Outcome.OK if near else Outcome.FAILED, detail=words)


def _skipped(detail: str) -> Check:
    return Check(name=NAME, outcome=Outcome.SKIPPED, detail=detail)
