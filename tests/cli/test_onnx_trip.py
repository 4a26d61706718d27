"""An ONNX graph with its weights beside it, from a folder on disk through service and worker."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import torch

from planish.contract.report import Plan, Report
from tests.cli.conftest import Service
from tests.engine.digits import Digits
from tests.onnx_exports import export_onnx

SCALE = ("--set", "data.preprocess.scale=0.0625")


def test_a_graph_and_its_weights_go_in_and_int8_comes_out(
    service: Service, digits: Digits, tmp_path: Path
) -> None:
    source = tmp_path / "net"
    source.mkdir()
    example = (torch.zeros(2, 1, 8, 8),)
    export_onnx(digits.module, example, source / "model.onnx", external=True)
    (source / "LICENSE").write_text("ours\n")
    data = ("--data", digits.data, "--test-data", digits.test_data, *SCALE)
    recipe = ("--recipe", '[{"op": "simplify"}, {"op": "quantize", "samples": 128}]')

    plan = Plan.model_validate(service.json("plan", source, *data, *recipe))
    assert plan.passes[1].layers_changed == 7

    out = tmp_path / "out"
    done = service.run("optimize", source, *data, *recipe, "-o", out)
    assert done.code == 0, done.err
    report = Report.model_validate_json((out / "report.json").read_bytes())
    assert report.reload.ok
    before, after = report.baseline.metric.correct, report.optimized.metric.correct
    assert before is not None
    assert after is not None
    assert after >= before - 9
    assert report.ratios.size > 2
    assert (out / "LICENSE").read_text() == "ours\n"
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]

    refused = service.run("submit", source, *data, "--recipe", '[{"op": "prune"}]', "--json")
    assert refused.code == 2
    problem = json.loads(refused.out or refused.err.strip().splitlines()[-1])
    assert "not_for_onnx" in json.dumps(problem)
