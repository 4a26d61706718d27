"""`planish doctor` and `planish denied`, as an operator runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from planish.cli.exits import Exit
from planish.contract.guards import is_guarded
from planish.doctor import places, software
from planish.guard.kernel import kernel_guards
from planish.store.denied import TRIES, DeniedFiles
from tests.cli.conftest import run


def outcomes(folder: Path, *options: object) -> dict[str, str]:
    done = run("doctor", "--json", "--data-dir", folder, *options)
    return {check["name"]: check["outcome"] for check in done.json["checks"]}


def test_doctor_tells_the_guards_and_the_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    found = outcomes(tmp_path)
    for guard in kernel_guards():
        assert (found[f"guard_{guard.name}"] == "ok") == guard.given
    assert (found["sandbox"] == "ok") == is_guarded(kernel_guards())
    assert found["data_folder"] == "ok"
    assert {"python", "user", "clock", "disk", "port", "redis", "worker_libraries"} <= set(found)
    tmp_path.chmod(0o755)
    assert outcomes(tmp_path)["data_folder"] == "warning"


def test_doctor_fails_when_redis_does_not_answer(tmp_path: Path) -> None:
    done = run("doctor", "--data-dir", tmp_path, "--redis-url", f"unix://{tmp_path}/none.sock")
    assert done.code == Exit.UNEXPECTED
    assert "does not answer" in done.out
    assert "1 failure" in done.err


def test_library_below_its_floor_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(software.FLOORS, "pydantic", (99,))
    found = {check.name: check for check in software.look_at_software()}
    assert found["pydantic_version"].outcome == "failure"
    assert "99 or newer" in found["pydantic_version"].detail


def test_data_where_locked_in_processes_may_read_is_a_failure() -> None:
    found = {check.name: check for check in places.look_at_places(Path("/opt/planish/data"), 0)}
    assert found["data_place"].outcome == "failure"


def test_denied_files_are_listed_and_forgotten(tmp_path: Path) -> None:
    denied = DeniedFiles(tmp_path)
    names = [f"sha256:{number:064d}" for number in range(2)]
    for _ in range(TRIES):
        denied.count(names[0], "default", "it died by SIGSEGV", "job_1")
    denied.count(names[1], "default", "it took longer than 120 s", "job_2")
    listed = run("denied", "list", "--json", "--data-dir", tmp_path).json
    assert {entry["id"]: entry["refused"] for entry in listed} == {names[0]: True, names[1]: False}
    assert run("denied", "clear", "--data-dir", tmp_path).code == Exit.BAD_INPUT
    assert names[0] in run("denied", "clear", names[0], "--data-dir", tmp_path).err.replace(
        "\n", ""
    )
    assert [entry.id for entry in denied.known()] == [names[1]]
    run("denied", "clear", "--all", "--data-dir", tmp_path)
    assert denied.known() == []
