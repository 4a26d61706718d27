"""Every upload of the corpus gets the answer that it must get, and nothing of any of them runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from planish.contract.errors import BY_CODE
from tests.hostile.canary import Canary
from tests.hostile.corpus import CASES, HARMLESS, Case
from tests.hostile.deliver import deliver_here, deliver_over_http
from tests.service.conftest import Api

HERE = [case for case in CASES if not case.over_http]


def test_the_corpus_is_large_and_every_case_says_what_it_tries() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(case.about and set(case.codes) <= {*BY_CODE, HARMLESS} for case in CASES)


@pytest.mark.parametrize("case", HERE, ids=[case.name for case in HERE])
def test_gate_and_loader_refuse_or_leave_it_closed(
    case: Case, canary: Canary, tmp_path: Path
) -> None:
    upload = case.make(canary)
    started = time.process_time()
    assert deliver_here(upload, tmp_path) in case.codes
    assert time.process_time() - started < 15, "gate and loader took too long"
    assert canary.fired() == []


def test_over_http_every_answer_is_a_stable_code(api: Api, canary: Canary) -> None:
    wrong, taken = [], 0
    with api.client() as client:
        for case in CASES:
            answer = deliver_over_http(case.make(canary), client)
            if answer.status_code == 202:
                taken += 1
                continue
            code = answer.json().get("code")
            if code not in case.codes or answer.status_code not in (400, 422):
                wrong.append(f"{case.name}: {answer.status_code} {answer.text[:200]}")
        assert client.get("/healthz").status_code == 200
    assert wrong == []
    assert taken < 40
    assert api.leftovers() == []
    assert canary.fired() == []
