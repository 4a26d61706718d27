"""Hostile acts, one function each, run in the converter's lock; loaded by a zygote without torch.

A probe returns when its act worked, and raises when something stopped it. One that would be too
dangerous in earnest asks the kernel in a way that is refused later than the guard: any other error
than the guard's own shows that nothing stood in the way.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

from planish.contract.spec import Spec
from planish.guard.libc import prctl
from planish.guard.lock import close
from tests.worker import probes_files, probes_processes  # noqa: F401  # each adds its acts
from tests.worker.probe_room import GROUPS, NOBODY, Room
from worker.exchange import Request
from worker.sandbox.order import Limits, Order
from worker.sandbox.profiles import converter_lock, engine_lock, give_folder, unused_user

# --- the door --------------------------------------------------------------------------------


def enter(argument: str, channel: int) -> int:
    """Act in a process whose parent stands for the supervisor; its exit code is the act's.

    `argument` is JSON: group, probe, profile (converter, engine or none), plain (as a user without
    any capability), folder.
    """
    ask = json.loads(argument)
    if ask["plain"]:
        _become_nobody()
    pid = os.fork()
    if pid == 0:
        _act(ask, channel)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) % 256


def _request(order: Order) -> Request:
    """A job with nothing but a model, whose folder is the conversion's."""
    return Request(
        job_id="job",
        kind="job",
        spec=order.spec,
        model=order.files[0],
        artifacts=order.result,
        scratch=order.spare,
        draft=order.result / "draft.json",
        threads=1,
        guarded=True,
    )


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    prctl(4, 1)  # its environment stays readable for its own user


def _act(ask: dict[str, str | bool], channel: int) -> None:
    folder = Path(str(ask["folder"]))
    order = Order(
        role="model",
        source=folder / "blobs" / "upload",
        spec=Spec.model_validate({"recipe": [{"op": "simplify"}]}),
        folder=folder / "jobs" / "mine",
        threads=1,
        limits=Limits(seconds=10, cpu_seconds=1, memory=256 << 20, output=1 << 20),
        guarded=ask["profile"] != "none",
    )
    os.open(folder / "jobs" / "other" / "SPEC.json", os.O_RDONLY)  # forgotten, to be found
    supervisor = os.getppid()
    room = Room(order, folder / "jobs" / "other", folder / "outside", supervisor)
    user = unused_user(os.getpid()) if os.geteuid() == 0 else None
    if ask["profile"] == "converter":
        give_folder(order, user)
        close(converter_lock(order, user, channel), supervisor)
    elif ask["profile"] == "engine":
        close(engine_lock(_request(order)), supervisor)
    code = 3
    try:
        GROUPS[str(ask["group"])][str(ask["probe"])](room)
        said = "done"
    except (OSError, MemoryError, RuntimeError) as error:
        said, code = f"{type(error).__name__}: {error}", 4
        if isinstance(error, OSError) and error.errno == errno.ENOSYS:
            said += " (not there)"
    signal.alarm(0)
    os.write(channel, said.encode())
    os._exit(code)
