"""What a reader must be told: anything that got worse, was not measured, or did not happen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from planish.contract.report import Measures, PassReport, Report
from worker.engine.report import words
from worker.engine.report.certificate import MIN_SAMPLES, Drop
from worker.engine.report.quality import Samples

LARGE_DROP = 0.01
NAMED_LAYERS = 5
DISTURBED = 2.0
_INT8_ISA = {"avx_vnni", "avx512_vnni", "amx_int8", "i8mm", "asimddp"}


def remarks(
    report: Report, drop: Drop | None, samples: Samples, kept_float: Sequence[str]
) -> tuple[str, ...]:
    """Return the warnings of a report, the gravest first; none for a plain success.

    Args:
        report: everything else is in it already.
        drop: what the metric lost on labelled sealed samples, None without labels.
        samples: what quality was measured on.
        kept_float: layers that the runtime computes in floats although the model is quantized.
    """
    return (
        *_worse(report),
        *_less_accurate(report, drop),
        *_thin_evidence(drop, samples),
        *_passes(report.passes),
        *_float_layers(kept_float),
        *_threads(report),
        *_disturbed(report),
    )


def _worse(report: Report) -> Iterator[str]:
    ratios = report.ratios
    if ratios.latency is not None and ratios.latency < 1 - words.NOISE:
        reasons = " ".join(_slow_reasons(report))
        slower = words.times(1 / ratios.latency)
        yield f"The optimized model is {slower} slower than the original. {reasons}".strip()
    elif ratios.latency is not None and ratios.latency <= 1 + words.NOISE:
        reasons = " ".join(_slow_reasons(report))
        yield f"The optimized model is not measurably faster than the original. {reasons}".strip()
    if ratios.size < 1 - words.NOISE:
        yield f"The optimized model is {words.times(1 / ratios.size)} larger than the original."
    elif ratios.size <= 1 + words.NOISE and ratios.compressed is not None and ratios.zeros_tell:
        smaller = words.times(ratios.compressed)
        yield f"The file is as large as the original's; compressed it is {smaller} smaller."
    elif ratios.size <= 1 + words.NOISE:
        yield "The optimized model is not smaller than the original."


def _slow_reasons(report: Report) -> Iterator[str]:
    """Name what is known to keep small or int8 models from getting faster."""
    ops = {done.op: done for done in report.passes if done.changed}
    isa = report.environment.get("isa")
    if "quantize" in ops and isinstance(isa, list) and not _INT8_ISA & set(map(str, isa)):
        yield "This processor has no int8 dot products (VNNI, AMX, i8mm)."
    if "quantize" in ops and ops["quantize"].facts.get("mode") == "dynamic":
        yield "Dynamic int8 quantizes activations in every call, which costs small models time."
    if "quantize" in ops and ops["quantize"].facts.get("mode") == "weight_only":
        yield "Weights alone in integers save bytes: they are turned into floats to compute with."
    if not ops.keys() & {"prune", "quantize"}:
        yield "No pass of the recipe reduces the work of a call."
    latency = report.baseline.latency_ms
    if latency is not None and latency.p50 < 0.2:
        yield "The calls are so short that starting each kernel takes most of the time."


def _less_accurate(report: Report, drop: Drop | None) -> Iterator[str]:
    if drop is None or drop.drop <= 0:
        return
    proven = drop.is_proven()
    if proven or (drop.unit != "value" and drop.drop >= LARGE_DROP):
        change = words.metric_change(report.baseline.metric, report.optimized.metric)
        certainty = "more than chance" if proven else "within what chance could do"
        yield f"The optimized model is less accurate: {change}; {certainty}."


def _thin_evidence(drop: Drop | None, samples: Samples) -> Iterator[str]:
    total = drop.total if drop is not None else 0
    match samples:
        case "no_data":
            yield (
                "No data came with the job: the only measure of quality is how well the outputs "
                "agree with the original's on synthetic noise. Send labelled data to measure "
                "accuracy."
            )
        case "too_few":
            yield (
                "The data is too small to seal a part of it: the only measure of quality is how "
                "well the outputs agree with the original's on synthetic noise. Send test_data."
            )
        case "unlabelled":
            yield (
                "The sealed samples have no labels: the only measure of quality is how well the "
                "outputs agree with the original's. Add an array named targets, and name the task "
                "in data.task, to measure more."
            )
        case "labelled" if total < MIN_SAMPLES:
            yield (
                f"Only {total} sealed samples: too few to bound the accuracy drop; "
                f"send at least {MIN_SAMPLES}."
            )


def _passes(passes: Sequence[PassReport]) -> Iterator[str]:
    for done in passes:
        if not done.changed:
            yield f"The pass {done.op} changed nothing."
        note: JsonValue = done.facts.get("warning")
        if isinstance(note, str):
            yield note[:1].upper() + note[1:] + ("" if note.endswith(".") else ".")


def _float_layers(names: Sequence[str]) -> Iterator[str]:
    if names:
        shown = ", ".join(names[:NAMED_LAYERS])
        more = f" and {len(names) - NAMED_LAYERS} more" if len(names) > NAMED_LAYERS else ""
        yield f"The runtime computes these layers in floats: {shown}{more}."


def _disturbed(report: Report) -> Iterator[str]:
    for side in (report.baseline.latency_ms, report.optimized.latency_ms):
        if side is not None and side.p90 > DISTURBED * side.p50:
            yield (
                "Something else kept the machine busy while the models were timed "
                f"(p90 is {words.times(side.p90 / side.p50)} the median): the medians and their "
                "ratio hold, the tails do not."
            )
            return


def _threads(report: Report) -> Iterator[str]:
    side: Measures = report.optimized
    facts: Mapping[str, JsonValue] = report.environment
    available = facts.get("cpus_available")
    if isinstance(available, int) and side.threads > available:
        yield (
            f"The target asks for {side.threads} threads, the measuring machine has {available}: "
            "the latency is that of an overloaded machine."
        )
