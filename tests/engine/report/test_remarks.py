"""A model that got slower, larger or worse is never called a success in silence."""

from __future__ import annotations

import pytest

from planish.contract.report import Latency, Metric, PassReport, Ratios, Report
from tests.engine.report.sample import sample_report
from worker.engine.report import words
from worker.engine.report.certificate import Paired
from worker.engine.report.quality import Samples
from worker.engine.report.remarks import remarks

GOOD = Paired(38, 31, 2000)


def said(
    report: Report,
    counts: Paired | None = GOOD,
    samples: Samples = "labelled",
    kept_float: tuple[str, ...] = (),
) -> str:
    return "\n".join(remarks(report, counts, samples, kept_float))


def with_ratios(**ratios: float) -> Report:
    report = sample_report()
    return report.model_copy(update={"ratios": report.ratios.model_copy(update=ratios)})


def test_plain_success_has_no_warning() -> None:
    assert said(sample_report()) == ""


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ({"latency": 0.5}, "2.0× slower"),
        ({"latency": 1.01}, "not measurably faster"),
        ({"size": 0.8}, "1.25× larger"),
        ({"size": 1.0}, "not smaller"),
    ],
)
def test_lost_speed_and_size_are_said(ratios: dict[str, float], words: str) -> None:
    assert words in said(with_ratios(**ratios))


def test_slow_int8_names_its_reasons() -> None:
    report = with_ratios(latency=0.9)
    dynamic = PassReport(
        op="quantize", changed=True, layers_changed=1, facts={"mode": "dynamic"}, seconds=1
    )
    report = report.model_copy(
        update={"passes": (dynamic,), "environment": {"isa": ["avx2"], "cpus_available": 8}}
    )
    assert "no int8 dot products" in said(report)
    assert "Dynamic int8" in said(report)
    packed = dynamic.model_copy(update={"facts": {"mode": "weight_only"}})
    assert "save bytes" in said(report.model_copy(update={"passes": (packed,)}))


def test_accuracy_loss_beyond_chance_is_said_even_when_small() -> None:
    assert "less accurate" in said(sample_report(), Paired(15, 0, 2000))
    assert "more than chance" in said(sample_report(), Paired(15, 0, 2000))
    assert "less accurate" not in said(sample_report(), Paired(5, 4, 2000))
    assert "within what chance could do" in said(sample_report(), Paired(2, 0, 150))


def test_missing_data_labels_and_samples_are_said() -> None:
    report = sample_report()
    assert "No data came" in said(report, None, "no_data")
    assert "no labels" in said(report, None, "unlabelled")
    assert "too small to seal" in said(report, None, "too_few")
    few = report.model_copy(
        update={
            "optimized": report.optimized.model_copy(
                update={"metric": Metric(name="accuracy", value=1.0, correct=40, total=40)}
            )
        }
    )
    assert "Only 40 sealed samples" in said(few, Paired(0, 0, 40))


def test_idle_passes_their_warnings_and_float_layers_are_said() -> None:
    idle = PassReport(
        op="simplify",
        changed=False,
        layers_changed=0,
        facts={"warning": "ranges are noise"},
        seconds=0,
    )
    report = sample_report().model_copy(update={"passes": (idle,)})
    text = said(report, kept_float=("a", "b", "c", "d", "e", "f"))
    assert "simplify changed nothing" in text
    assert "Ranges are noise." in text
    assert "floats: a, b, c, d, e and 1 more" in text


def test_more_threads_than_processors_are_said() -> None:
    report = sample_report()
    report = report.model_copy(update={"environment": {**report.environment, "cpus_available": 1}})
    assert "overloaded machine" in said(report)


def test_busy_machine_is_said() -> None:
    report = sample_report()
    shaken = report.baseline.model_copy(
        update={"latency_ms": Latency(p50=1.0, p90=5.0, p99=30.0, samples=120)}
    )
    assert "5.0× the median" in said(report.model_copy(update={"baseline": shaken}))


def test_tone_follows_the_warnings() -> None:
    plain = sample_report().model_copy(update={"warnings": ()})
    assert words.tone(plain) == "good"
    assert words.tone(sample_report()) == "mixed"
    nothing = Ratios(size=1.0, latency=1.0, macs=1.0, params=1.0)
    assert words.tone(plain.model_copy(update={"ratios": nothing})) == "bad"
