"""What a newcomer sees first: it must work, offline, and leave nothing running."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import psutil

from planish.contract.report import Report
from tests.cli.conftest import command, environment, run
from tests.conftest import missing


def test_demo_makes_the_model_smaller_and_faster_and_leaves_nothing_running(
    tmp_path: Path,
) -> None:
    if find_spec("sklearn") is None:
        missing("scikit-learn is not installed")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    process = psutil.Popen(
        command("demo", "-o", tmp_path / "out", "--json"),
        env={**environment(), "TMPDIR": str(scratch)},
        stdout=-1,
        stderr=-1,
        text=True,
    )
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    report = Report.model_validate_json((tmp_path / "out" / "report.json").read_bytes())
    assert report.ratios.size >= 3
    assert report.baseline.metric.value is not None
    assert report.baseline.metric.value >= 0.97
    assert report.certificate.observed_drop is not None
    assert report.certificate.observed_drop <= 0.015
    assert '"ok": true' in out
    assert run("verify", tmp_path / "out").code == 0
    assert list(scratch.glob("planish-demo-*")) == []
    left = [p.pid for p in psutil.process_iter() if _started_in(p, scratch)]
    assert left == []


def _started_in(process: psutil.Process, scratch: Path) -> bool:
    try:
        return process.environ().get("TMPDIR") == str(scratch)
    except (psutil.Error, OSError):
        return False
