"""Hostile acts in the process that opens uploads: denied there, and possible without guards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from planish.contract.guards import is_guarded
from planish.guard.kernel import kernel_guards
from tests.conftest import ROOT, missing
from tests.worker.probes import GROUPS, NOBODY
from worker.launcher import Launcher

ROOT_USER = os.geteuid() == 0
WAYS = ["worker is root", "worker is a plain user"] if ROOT_USER else ["worker is a plain user"]
CASES = [(group, name) for group, probes in GROUPS.items() for name in probes]

# Not stopped by a denial but by a limit: the process is told, or ended.
BY_SIGNAL = {"spin": signal.SIGXCPU}
# Counted for each user: only where the converter has one of its own.
NEEDS_OWN_USER = {"start_many_threads"}


@dataclass(frozen=True)
class Told:
    """What came of a probe: its exit code (3: the act worked), and its words."""

    code: int
    words: str

    @property
    def worked(self) -> bool:
        return self.code in (0, 3)


class Range:
    """A data folder with a job, a neighbour and something outside, and a zygote beside it."""

    def __init__(self, launcher: Launcher, folder: Path) -> None:
        self._launcher = launcher
        self._folder = folder

    def shoot(self, group: str, name: str, profile: str, *, plain: bool = False) -> Told:
        self._tidy(plain)
        ask = {"group": group, "probe": name, "profile": profile, "plain": plain}
        with tempfile.TemporaryFile(dir=self._folder) as log:
            child = self._launcher.launch(
                json.dumps({**ask, "folder": str(self._folder)}), log.fileno()
            )
            try:
                code = child.wait(20.0)
                assert code is not None, f"{name} does not end"
                words = os.read(child.channel, 1000).decode()
            except BlockingIOError:
                words = ""
            finally:
                child.close()
            log.seek(0)
            return Told(code, words or log.read(2000).decode(errors="replace").strip("\0"))

    def _tidy(self, plain: bool) -> None:
        for name in ("blobs", "jobs", "outside"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        mine = self._folder / "jobs" / "mine"
        for folder in (mine / "result", mine / "spare", self._folder / "jobs" / "other"):
            folder.mkdir(parents=True)
        for folder in (self._folder / "blobs", self._folder / "outside"):
            folder.mkdir()
        (self._folder / "blobs" / "upload").write_bytes(bytes(4096))
        (self._folder / "jobs" / "other" / "SPEC.json").write_text("{}")
        (mine / "order.json").write_text("{}")
        if plain and ROOT_USER:
            for current, _, names in os.walk(self._folder):
                for path in (current, *(os.path.join(current, name) for name in names)):
                    os.chown(path, NOBODY, NOBODY)


@pytest.fixture(scope="module")
def shooting_range() -> Iterator[Range]:
    if not is_guarded(kernel_guards()):
        missing("this kernel gives no sandbox")
    launcher = Launcher(("tests.worker.probes",), "tests.worker.probes:enter")
    folder = Path(tempfile.mkdtemp(prefix="planish-probes-"))
    folder.chmod(0o755)
    try:
        yield Range(launcher, folder)
    finally:
        launcher.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("group", "name"), CASES, ids=[name for _, name in CASES])
def test_hostile_act_is_denied(shooting_range: Range, group: str, name: str, way: str) -> None:
    plain = way == "worker is a plain user"
    if plain and name in NEEDS_OWN_USER:
        pytest.skip(
            "processes are counted for each user; only a worker that is root has spare ones"
        )
    told = shooting_range.shoot(group, name, "converter", plain=plain)
    if name in BY_SIGNAL:
        assert told.code == -int(BY_SIGNAL[name]) % 256, told
    else:
        assert told.code == 4, told


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_the_same_acts_work_without_the_guards(shooting_range: Range, group: str) -> None:
    """Prove the harness. What this machine denies by itself proves nothing, and is told."""
    told = {name: shooting_range.shoot(group, name, "none") for name in GROUPS[group]}
    worked = [name for name, result in told.items() if result.worked]
    assert len(worked) >= (0.7 if ROOT_USER else 0.4) * len(told), told
    blocked = {name: result.words for name, result in told.items() if not result.worked}
    print(f"{group}: {len(worked)} of {len(told)} work unguarded; not: {blocked}")


ENGINE_DENIES = {
    "read": (
        "read_another_jobs_spec", "list_other_jobs", "read_the_supervisors_environment",
        "read_the_supervisors_memory", "read_etc_shadow", "read_the_services_source",
        "list_the_home_folder",
    ),
    "write": ("write_outside", "overwrite_its_input", "truncate_its_input", "move_its_result_out"),
    "links": ("make_a_device_node",),
    "programs": ("run_a_file_of_its_own",),
    "network": tuple(name for name in GROUPS["network"] if name != "socket_pair"),
    "processes": ("trace_a_process", "read_memory_of_the_supervisor"),
    "kernel": tuple(GROUPS["kernel"]),
}  # fmt: skip
ENGINE_MAY = {"programs": ("run_a_system_program", "start_a_process"), "read": ("list_processes",)}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("group", sorted(ENGINE_DENIES))
def test_engine_is_denied_what_its_work_does_not_need(
    shooting_range: Range, group: str, way: str
) -> None:
    plain = way == "worker is a plain user"
    told = {
        name: shooting_range.shoot(group, name, "engine", plain=plain)
        for name in ENGINE_DENIES[group]
    }
    assert {name: result for name, result in told.items() if result.code != 4} == {}


@pytest.mark.parametrize("group", sorted(ENGINE_MAY))
def test_engine_may_do_what_its_work_needs(shooting_range: Range, group: str) -> None:
    told = {name: shooting_range.shoot(group, name, "engine") for name in ENGINE_MAY[group]}
    assert {name: result for name, result in told.items() if not result.worked} == {}


def test_every_probe_is_listed_in_the_docs() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    assert [name for _, name in CASES if f"`{name}`" not in text] == []


def test_there_are_probes_enough() -> None:
    assert len(CASES) >= 25
    assert len({name for _, name in CASES}) == len(CASES)
