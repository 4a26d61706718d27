"""One job on an ONNX graph: load, baseline, passes, export, measure, reload, report."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from planish.contract.job import EventType
from planish.contract.recipe import op_of
from planish.contract.report import PassReport, Reload, Report
from planish.contract.spec import FORMATS
from planish.contract.wire import REFERENCE
from planish.gate.notes import notes_of
from planish.gate.parts import riders_of
from worker.engine.comparison import Comparison, compare_sides
from worker.engine.measure.reload import check_reload
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.measure.runtime_graph_openvino import openvino_float_layers
from worker.engine.prepare import JobInputs
from worker.engine.progress import Progress
from worker.engine.publish import Files, publish
from worker.engine.report.build import Findings, build_report, measured_sides
from worker.engine.report.layers import float_by_mistake, layer_table
from worker.engine.report.result import main_output
from worker.engine.runtime_model.layers import sizes_of
from worker.engine.runtime_model.model import RuntimeModel
from worker.engine.runtime_model.prepare import RuntimePrepared, prepare_onnx
from worker.engine.runtime_model.registry import REGISTRY
from worker.engine.runtime_model.save import export_runtime
from worker.engine.save.notes import annotate
from worker.engine.stages import Stages, reported


def optimize_onnx(inputs: JobInputs, out_dir: Path, scratch: Path, progress: Progress) -> Report:
    """Run a job whose model is an ONNX file; see `worker.engine.pipeline.optimize`."""
    spec = inputs.spec
    stages = Stages([op_of(type(params)) for params in spec.recipe or ()], progress)
    stages.begin("load")
    torch.manual_seed(spec.seed)
    prepared = prepare_onnx(inputs)
    stages.begin("baseline")
    runtime = spec.target.runtime
    before = export_runtime(prepared.original, scratch / "baseline", spec.outputs, runtime)
    model, passes = _run_passes(prepared, stages, progress)
    stages.begin("export")
    after = export_runtime(model, scratch / "optimized", spec.outputs, runtime)
    notes = notes_of(inputs.model)
    for path in after.values():
        annotate(path, notes)
    stages.begin("measure")
    measured = FORMATS[runtime]
    compared = compare_sides(prepared, before[measured], after[measured], progress)
    stages.begin("reload")
    published, reference = [after[output] for output in spec.outputs], scratch / REFERENCE
    reload = check_reload(
        model,
        published,
        spec.target.threads,
        spec.seed,
        original=prepared.original,
        reference=reference,
    )
    stages.begin("report")
    found = _findings(inputs, prepared, model, passes, (before, after), compared, reload)
    report = build_report(found)
    for warning in report.warnings:
        progress.event(EventType.WARNING, {"message": warning})
    publish(out_dir, after, report, spec, riders_of(inputs.model), reference, notes)
    return report


def _run_passes(
    prepared: RuntimePrepared, stages: Stages, progress: Progress
) -> tuple[RuntimeModel, tuple[PassReport, ...]]:
    model = prepared.original
    reports: list[PassReport] = []
    for step, params in enumerate(prepared.spec.recipe or (), 1):
        op = op_of(type(params))
        stages.begin(op)
        run, around = REGISTRY[op].run, prepared.around(step, progress)
        outcome, report = reported(partial(run, model, params, around), params, step, progress)
        model = outcome.model
        reports.append(report)
    return model, tuple(reports)


def _findings(
    inputs: JobInputs,
    prepared: RuntimePrepared,
    model: RuntimeModel,
    passes: tuple[PassReport, ...],
    files: tuple[Files, Files],
    compared: Comparison,
    reload: Reload,
) -> Findings:
    spec = inputs.spec
    main = main_output(spec.outputs, spec.target.runtime)
    before, after = files
    baseline, optimized = measured_sides(
        (prepared.original.amount, model.amount),
        (before[main], after[main]),
        (compared.baseline, compared.optimized),
    )
    sizes = sizes_of(prepared.original.proto)
    return Findings(
        job_id=inputs.job_id,
        target=spec.target,
        seed=spec.seed,
        baseline=baseline,
        optimized=optimized,
        latency_ratio=compared.latency_ratio,
        quality=compared.quality,
        samples=compared.samples,
        fidelity=compared.fidelity,
        passes=passes,
        training=(),
        layers=layer_table(sizes, {**sizes, **sizes_of(model.proto)}, model),
        reload=reload,
        kept_float=float_by_mistake(model, _float_layers(model, after, inputs)),
        tuning=compared.tuning,
    )


def _float_layers(model: RuntimeModel, files: Files, inputs: JobInputs) -> tuple[str, ...]:
    """Return the layers of a quantized graph that the runtime computes in floats."""
    if model.quantization is None:
        return ()
    if inputs.spec.target.runtime == "openvino":
        return openvino_float_layers(files["openvino"])
    return read_runtime_graph(files["onnx"]).float_layers
