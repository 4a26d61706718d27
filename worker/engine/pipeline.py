"""One job from files to artifacts: load, baseline, passes, export, measure, reload, report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from planish.contract.errors import OutOfMemory
from planish.contract.job import EventType
from planish.contract.recipe import op_of
from planish.contract.report import Reload, Report
from planish.contract.spec import FORMATS, Target
from planish.contract.wire import REFERENCE
from planish.gate.notes import notes_of
from planish.gate.parts import riders_of
from worker.engine.comparison import Comparison, compare_sides
from worker.engine.controls import judged
from worker.engine.measure.macs import count_macs
from worker.engine.measure.reload import check_reload
from worker.engine.measure.runtime_graph import read_runtime_graph
from worker.engine.measure.runtime_graph_openvino import openvino_float_layers
from worker.engine.measure.size import count_parameters
from worker.engine.model import Model
from worker.engine.planning import make_plan
from worker.engine.prepare import JobInputs, Prepared, prepare
from worker.engine.progress import Progress
from worker.engine.publish import Files, export, publish, require_writers
from worker.engine.report.build import Amount, Findings, build_report, measured_sides
from worker.engine.report.layers import float_by_mistake, layer_sizes, layer_table
from worker.engine.report.result import main_output
from worker.engine.runtime_model.pipeline import optimize_onnx
from worker.engine.runtime_model.prepare import is_onnx
from worker.engine.save.notes import annotate
from worker.engine.stages import Stages, Worked, run_passes

__all__ = ["JobInputs", "make_plan", "optimize"]


def optimize(inputs: JobInputs, out_dir: Path, progress: Progress) -> Report:
    """Run a job.

    Same inputs, seed, machine and thread count give the same model.

    Args:
        inputs: spec and files.
        out_dir: an empty folder; afterwards it holds exactly the artifacts.
        progress: told about stages, passes and epochs.

    Returns:
        The report, which also lies in `out_dir` as ``report.json`` and ``report.html``.

    Raises:
        InvalidInput: what came cannot be used (model, data or recipe).
        MissingDependency: this worker cannot write an output.
        TrainingDiverged, ReloadMismatch, OutOfMemory: the job could not be done.
    """
    run = optimize_onnx if is_onnx(inputs) else _run
    require_writers(inputs.spec)
    with memory_watched(), tempfile.TemporaryDirectory(prefix="planish-") as scratch:
        return run(inputs, out_dir, Path(scratch), progress)


def _run(inputs: JobInputs, out_dir: Path, scratch: Path, progress: Progress) -> Report:
    spec = inputs.spec
    stages = Stages([op_of(type(params)) for params in spec.recipe or ()], progress)
    stages.begin("load")
    torch.manual_seed(spec.seed)
    prepared = prepare(inputs)
    stages.begin("baseline")
    runtime = spec.target.runtime
    main = main_output(spec.outputs, runtime)
    # Every format, so that one that cannot be written fails now; native code takes minutes.
    tried = [name for name in spec.outputs if name != "aotinductor" or name == main]
    before = export(prepared.original, scratch / "baseline", tried, runtime)
    worked = run_passes(prepared, stages, progress)
    stages.begin("export")
    after = export(worked.model, scratch / "optimized", spec.outputs, runtime)
    notes = notes_of(inputs.student or inputs.model)
    for path in after.values():
        annotate(path, notes)
    stages.begin("measure")
    measured = FORMATS[runtime]
    compared = compare_sides(prepared, before[measured], after[measured], progress)
    stages.begin("reload")
    published = [after[output] for output in spec.outputs]
    reference = scratch / REFERENCE
    reload = check_reload(
        worked.model,
        published,
        spec.target.threads,
        spec.seed,
        original=prepared.original,
        reference=reference,
    )
    stages.begin("report")
    report = build_report(_findings(inputs, prepared, worked, before, after, compared, reload))
    for warning in report.warnings:
        progress.event(EventType.WARNING, {"message": warning})
    riders = riders_of(inputs.student or inputs.model)
    publish(out_dir, after, report, spec, riders, reference, notes)
    return report


def _findings(
    inputs: JobInputs,
    prepared: Prepared,
    worked: Worked,
    before: Files,
    after: Files,
    compared: Comparison,
    reload: Reload,
) -> Findings:
    spec = inputs.spec
    main = main_output(spec.outputs, spec.target.runtime)
    sealed = prepared.splits.sealed if prepared.splits else None
    baseline, optimized = measured_sides(
        (_amount(prepared.original), _amount(worked.model)),
        (before[main], after[main]),
        (compared.baseline, compared.optimized),
    )
    floats = _float_layers(worked.model, after, spec.target)
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
        passes=judged(worked.passes, worked.controlled, sealed, spec.data.task),
        training=worked.training,
        layers=layer_table(layer_sizes(prepared.start), worked.sizes, worked.model),
        reload=reload,
        kept_float=float_by_mistake(worked.model, floats),
        tuning=compared.tuning,
    )


def _amount(model: Model) -> Amount:
    return Amount(count_parameters(model), count_macs(model))


def _float_layers(model: Model, files: Files, target: Target) -> tuple[str, ...]:
    """Return the layers of a quantized model that the runtime computes in floats."""
    if model.quantization is None:
        return ()
    if target.runtime == "openvino":
        return openvino_float_layers(files["openvino"])
    if target.runtime == "onnxruntime":
        return read_runtime_graph(files["onnx"]).float_layers
    return tuple(layer.name for layer in model.quantization.layers)


@contextmanager
def memory_watched() -> Iterator[None]:
    """Turn the ways in which memory runs out into one error."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(_advice()) from error
    except RuntimeError as error:
        # torch's CPU allocator has no exception class of its own.
        if "can't allocate memory" not in str(error):
            raise
        raise OutOfMemory(_advice()) from error


def _advice() -> str:
    return "the job needs more memory than there is; set a smaller train.batch_size"
