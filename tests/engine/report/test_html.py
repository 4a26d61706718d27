"""report.html is one file, escapes what it is given, and reads well wherever parts are absent."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from planish.contract.report import LayerSkipped, PassReport, Ratios, Report
from tests.engine.report.sample import sample_report, without_labels
from worker.engine.report import words
from worker.engine.report.html import render
from worker.engine.report.markup import Html, el

HOSTILE = '<script>alert("x")</script>&\'"'
VOID = {"meta", "br", "col"}


class Page(HTMLParser):
    """Collects tags, checks that they nest, and gathers texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.mark.parametrize("report", [sample_report(), without_labels()], ids=["full", "no labels"])
def test_page_is_self_contained_and_well_formed(report: Report) -> None:
    source = render(report)
    page = Page(source)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in page.tags:
        assert not {"src", "href", "onclick", "onload", "style"} & set(attributes)
    assert "url(" not in source
    assert "http://" not in source
    assert "https://" not in source
    assert "nan" not in page.text.lower().split()


def test_headline_names_size_speed_and_counts() -> None:
    assert words.headline(sample_report()) == (
        "3.6× smaller, 2.1× faster, −0.35 points (1829/2000 vs 1836/2000)"
    )
    assert words.headline(without_labels()) == "3.6× smaller, 98.00 % agreement with the original"


def test_slower_and_larger_are_called_so() -> None:
    report = sample_report()
    worse = report.model_copy(
        update={"ratios": Ratios(size=0.5, latency=0.8, macs=1.0, params=1.0)}
    )
    assert words.headline(worse).startswith("2.0× larger, 1.25× slower")
    assert words.tone(worse) == "bad"
    assert "slower than before" in Page(render(worse)).text
    assert words.change(1.02, "faster", "slower", "same speed") == "same speed"


def test_everything_is_escaped() -> None:
    report = sample_report()
    done = PassReport(
        op=HOSTILE,
        changed=False,
        layers_changed=0,
        layers_skipped=(LayerSkipped(name=HOSTILE, why=HOSTILE),),
        facts={HOSTILE: HOSTILE},
        seconds=1.0,
    )
    layer = report.layers[0].model_copy(
        update={"name": HOSTILE, "kind": HOSTILE, "shape_before": HOSTILE, "dtype_after": HOSTILE}
    )
    hostile = report.model_copy(
        update={
            "job_id": HOSTILE,
            "passes": (done,),
            "layers": (layer,),
            "warnings": (HOSTILE,),
            "environment": {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]},
        }
    )
    source = render(hostile)
    assert "<script" not in source
    assert HOSTILE in Page(source).text


def test_attributes_are_escaped_and_markup_is_kept() -> None:
    assert el("p", "<b>", title='"><b>') == '<p title="&quot;&gt;&lt;b&gt;">&lt;b&gt;</p>'
    assert el("p", Html("<b>x</b>"), None, hidden=True, lang=None) == "<p hidden><b>x</b></p>"


def test_every_picture_has_a_text() -> None:
    for tag, attributes in Page(render(sample_report())).tags:
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"


def test_page_is_for_phones_and_dark_mode() -> None:
    source = render(sample_report())
    assert 'name="viewport"' in source
    assert "prefers-color-scheme: dark" in source
    assert "max-width: 560px" in source


def test_training_that_diverged_in_the_middle_still_draws() -> None:
    report = sample_report()
    epochs = list(report.training)
    epochs[3] = epochs[3].model_copy(update={"loss": float("inf"), "accuracy": None})
    assert "Loss per epoch" in render(report.model_copy(update={"training": tuple(epochs)}))


def test_disturbed_rounds_do_not_squeeze_the_plot() -> None:
    rounds = {"baseline": (2.0,) * 39 + (90.0,), "optimized": (1.0,) * 40}
    page = Page(render(sample_report().model_copy(update={"latency_rounds": rounds})))
    assert "baseline, median 2 ms, 1 beyond the axis" in page.text


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.size(999), "999 B"),
        (words.size(298_400), "298 kB"),
        (words.size(1_086_000), "1.09 MB"),
        (words.big(41_000_000), "41.0 M"),
        (words.milliseconds(0.3123), "0.312 ms"),
        (words.milliseconds(0.01713), "0.0171 ms"),
        (words.points(-0.0035, 2000), "−0.35 points"),
        (words.points(0.0, 360), "±0.0 points"),
        (words.times(1.077), "1.08×"),
        (words.times(3.64), "3.6×"),
    ],
)
def test_figures_are_written_as_people_write_them(shown: str, expected: str) -> None:
    assert shown == expected
