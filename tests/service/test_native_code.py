"""The operator's switch for native code, through HTTP."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.settings import InvalidSettingsError, ServiceSettings
from tests.service.conftest import SPEC, form, problem


@pytest.mark.parametrize("route", ["/jobs", "/plans"])
def test_native_code_is_refused_at_submit_with_a_code(
    client: httpx.Client, model: bytes, route: str
) -> None:
    answer = client.post(route, files=form({**SPEC, "outputs": ["aotinductor"]}, model=model))
    found = problem(answer, 422, "output_not_allowed")
    assert "PLANISH_NATIVE_CODE=allow" in str(found["detail"])
    assert "/outputs" in str(found["errors"])


def test_the_switch_takes_two_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANISH_DATA_DIR", str(tmp_path))
    for text, allowed in (("", False), ("deny", False), ("allow", True)):
        monkeypatch.setenv("PLANISH_NATIVE_CODE", text)
        assert ServiceSettings.from_env().native_code is allowed
    monkeypatch.setenv("PLANISH_NATIVE_CODE", "yes")
    with pytest.raises(InvalidSettingsError, match="use one of allow, deny"):
        ServiceSettings.from_env()
