"""How far the figures can be trusted: certificate, fidelity, reload, environment; how to load."""

from __future__ import annotations

from planish.contract.report import Report
from worker.engine.report import blocks, words
from worker.engine.report.markup import Html, el

_USAGE = """\
python load.py        # prints inputs and outputs, runs one batch
planish verify .      # checks every file against manifest.json"""
_BADGES = {"certified": "good", "not_met": "bad", "not_enough_data": "warn"}


def certificate(report: Report) -> Html:
    """Say in words what the sealed samples prove."""
    found = report.certificate
    css = _BADGES.get(found.outcome, "quiet")
    badge = el("span", found.outcome.replace("_", " "), class_=f"badge {css}")
    return el(
        "section",
        el("h2", "How sure is the quality?"),
        el("p", badge),
        el("p", words.certificate_sentence(found)),
        el("p", f"Method: {found.method}.", class_="note") if found.n else None,
    )


def checks(report: Report) -> Html:
    """Show fidelity to the original and the reload check."""
    f, r = report.fidelity, report.reload
    state = el("span", "passed" if r.ok else "failed", class_=f"badge {'good' if r.ok else 'bad'}")
    rows: dict[str, str] = {
        "Reload in a fresh process": state,
        "Largest difference after reload": f"{r.max_abs_error:.2g}",
        "Same answer as the original": words.percent(f.agreement),
        "Cosine of the outputs": "–" if f.cosine is None else f"{f.cosine:.5f}",
        "Signal to noise": "–" if f.sqnr_db is None else f"{f.sqnr_db:.1f} dB",
        "Largest output difference": "–" if f.max_abs is None else f"{f.max_abs:.3g}",
    }
    rows |= {f"Format of {name}": text for name, text in r.formats.items()}
    return el("section", el("h2", "Does it give the same outputs?"), blocks.pairs(rows))


def usage() -> Html:
    """Show how to load what lies beside this page."""
    return el(
        "section",
        el("h2", "Use it"),
        el("p", "In the folder of the downloaded files:"),
        el("pre", el("code", _USAGE)),
    )


def environment(report: Report) -> Html:
    """Show where the figures were measured."""
    rows = {
        blocks.spaced(key): blocks.plain_value(value)
        for key, value in report.environment.items()
        if value not in ([], {}, None)
    }
    return el("section", el("h2", "Measured on"), blocks.pairs(rows))
