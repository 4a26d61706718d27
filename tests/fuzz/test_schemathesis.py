"""A short form of the run against the live API; `python -m tests.fuzz.schemathesis_run` is long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import missing

pytest.importorskip("numpy")

try:
    import schemathesis
except ImportError:
    schemathesis = None


def test_generated_requests_get_answers_that_the_document_describes(tmp_path: Path) -> None:
    if schemathesis is None:
        missing("schemathesis is needed")
    from tests.fuzz.schemathesis_run import fuzz, world

    with world(tmp_path) as there:
        found = fuzz(there, examples=2, seed=7, phases="fuzzing", folder=tmp_path)
    assert found["failed_checks"] == {}
    assert found["server_errors"] == 0
    assert found["exit_code"] == 0
    assert found["cases"] > 60
