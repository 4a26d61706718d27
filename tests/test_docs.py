"""Every list in the docs is held against the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from planish.contract.errors import BY_CODE, PlanishError
from planish.contract.job import TRANSITIONS, EventType
from planish.contract.recipe import PASSES, Train, op_of
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def backticked(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def test_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not link.startswith(("http://", "https://", "#", "mailto:")):
            assert (path.parent / link.partition("#")[0]).exists(), f"{path.name}: {link}"


@pytest.mark.parametrize("params", PASSES, ids=op_of)
def test_pass_has_its_row_in_the_readme_and_its_section_in_the_docs(params: type) -> None:
    op = op_of(params)
    assert re.search(rf"^\| \[?`{op}`", README, re.MULTILINE)
    section = re.search(
        rf"^## `?{op}`?\n(.*?)(?=^## |\Z)", page("passes.md"), re.MULTILINE | re.DOTALL
    )
    assert section, f"docs/passes.md has no section on {op}"
    missing = set(params.model_fields) - {"op"} - backticked(section[1])
    assert not missing, f"docs/passes.md, {op}: {sorted(missing)}"


def test_every_training_parameter_is_documented() -> None:
    assert set(Train.model_fields) <= backticked(page("passes.md"))


def test_docs_name_no_pass_that_does_not_exist() -> None:
    documented = re.findall(r"^\| \[`(\w+)`\]\(docs/passes.md", README, re.MULTILINE)
    assert set(documented) == {op_of(params) for params in PASSES}


def test_every_error_code_is_documented() -> None:
    codes = set(BY_CODE) - {PlanishError.code}
    assert codes - backticked(page("api.md")) == set()


def test_every_route_is_documented() -> None:
    from service.app import make_api
    from service.desk import Desk
    from service.settings import ServiceSettings

    schema = make_api(Desk(ServiceSettings.from_env())).openapi()
    text = page("api.md")
    missing = [
        f"{method.upper()} {path}"
        for path, operations in schema["paths"].items()
        for method in operations
        if f"{method.upper()} {path}" not in text
    ]
    assert missing == []


def test_every_event_type_is_documented() -> None:
    assert {str(kind) for kind in EventType} <= backticked(page("api.md"))


def test_state_machine_page_draws_exactly_the_transitions() -> None:
    drawn = set(re.findall(r"^\s*(\w+) --> (\w+)", page("state-machine.md"), re.MULTILINE))
    coded = {(str(a), str(b)) for a, onward in TRANSITIONS.items() for b in onward}
    assert {(a, b) for a, b in drawn if a in set(map(str, TRANSITIONS))} == coded


def test_every_decision_is_listed() -> None:
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", page("decisions/README.md")))
    assert listed == {p.name for p in (ROOT / "docs/decisions").glob("0*.md")}


def test_documented_settings_are_read_by_the_code() -> None:
    code = "\n".join(
        path.read_text()
        for part in ("planish", "service", "worker")
        for path in (ROOT / part).rglob("*.py")
    )
    named = set(re.findall(r"`(PLANISH_\w+)`", page("operations.md")))
    assert named
    assert [name for name in sorted(named) if name not in code] == []


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in PAGES:
        for target in re.findall(r"`make (\w+)`", path.read_text()):
            assert target in targets, f"{path.name}: make {target}"


def test_python_blocks_compile() -> None:
    for path in PAGES:
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            ast.parse(block)


def test_no_module_is_above_its_limit() -> None:
    parts = ("planish", "service", "worker", "bench")
    files = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    long = {
        str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 400
    }
    assert long == {}


def test_named_source_files_exist() -> None:
    named = re.compile(r"`((?:planish|service|worker|tests|bench|scripts|examples)/[\w./-]+\.\w+)`")
    for path in PAGES:
        for name in named.findall(path.read_text()):
            assert (ROOT / name).exists(), f"{path.name}: {name}"
