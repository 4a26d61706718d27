"""The two profiles: the converter, which opens uploads, and the engine, which works on models."""

from __future__ import annotations

import contextlib
import os
import pwd
import resource
from pathlib import Path

from planish.contract.recipe import Distill, Retrain
from planish.contract.spec import Spec
from planish.guard.landlock import READ, WRITE, WRITE_LINKS, Access, Grant, landlock_abi
from planish.guard.lock import Lock
from planish.guard.process import FIRST_UNUSED_USER, address_space
from planish.guard.seccomp import ALLOW, DENY
from worker.exchange import Request, Stored
from worker.sandbox.calls import converter_calls, engine_calls
from worker.sandbox.order import Order
from worker.sandbox.places import converter_places, engine_places

TRUNCATE_ABI = 3
_MAX_DESCRIPTORS = 512
_MAX_THREADS = 512
_USERS = ((FIRST_UNUSED_USER, 1 << 16), (58_000, 2_000))


def converter_lock(order: Order, user: int | None, channel: int) -> Lock:
    """Return what a converter keeps: its input to read, its folder to write.

    Args:
        order: names input and folder.
        user: to become; None to stay.
        channel: descriptor that stays open beside standard input, output and error.
    """
    limits = order.limits
    return Lock(
        grants=[
            *converter_places([order.folder, *order.files]),
            *(Grant(path, Access.READ_FILE) for path in order.files),
            Grant(order.result, WRITE),
            Grant(order.spare, WRITE),
        ],
        rules=converter_calls(),
        default=DENY,
        limits={
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_AS: address_space() + limits.memory,
            resource.RLIMIT_CPU: limits.cpu_seconds,
            resource.RLIMIT_FSIZE: limits.output,
            resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
            # counted for each user: it binds only where the user is the converter's own
            **({} if user is None else {resource.RLIMIT_NPROC: _MAX_THREADS}),
        },
        descriptors=(0, 1, 2, channel),
        user=user,
    )


def engine_lock(request: Request) -> Lock:
    """Return what the process of a job keeps: its own folders, programs of the system."""
    stored = (request.model, request.data, request.test_data, request.teacher, request.student)
    spec = request.spec
    own = [request.artifacts, request.scratch, request.checkpoints, request.draft.parent]
    return Lock(
        grants=[
            *engine_places([request.scratch], gpus=spec.resources.gpus > 0),
            *(Grant(path, READ) for source in stored for path in _paths(source)),
            *(Grant(path, WRITE_LINKS) for path in own if path is not None),
        ],
        rules=engine_calls(
            sockets=_loads_in_processes(spec),
            tcp=_trains_in_processes(spec),
            truncate=landlock_abi() >= TRUNCATE_ABI,
        ),
        default=ALLOW,
        tcp=_trains_in_processes(spec),
        limits={resource.RLIMIT_CORE: 0},
        dumpable=True,
    )


def unused_user(seed: int) -> int | None:
    """Return an id that no user has and this user namespace knows, for users and for groups.

    Args:
        seed: different ones give different ids, for processes that run at the same time.

    Returns:
        None where there is no such id.
    """
    for first, count in _USERS:
        user = first + seed % count
        if _mapped(user, "uid") and _mapped(user, "gid"):
            with contextlib.suppress(KeyError):
                pwd.getpwuid(user)
                continue
            return user
    return None


def give_folder(order: Order, user: int | None) -> None:
    """Make the conversion's folders the converter's own."""
    for folder in (order.result, order.spare):
        if user is not None:
            os.chown(folder, user, user)


def _paths(stored: Stored | None) -> tuple[Path, ...]:
    if stored is None:
        return ()
    return tuple(part.path for part in stored) if isinstance(stored, tuple) else (stored,)


def _trains_in_processes(spec: Spec) -> bool:
    passes = [p for p in spec.recipe or () if isinstance(p, Distill | Retrain)]
    return spec.resources.nodes > 1 or any(p.strategy in ("ddp", "fsdp") for p in passes)


def _loads_in_processes(spec: Spec) -> bool:
    trains = [getattr(params, "train", None) for params in spec.recipe or ()]
    return any(train is not None and train.workers > 0 for train in trains)


def _mapped(number: int, kind: str) -> bool:
    """Tell whether this user namespace knows an id; user_namespaces(7) has the format."""
    for line in Path(f"/proc/self/{kind}_map").read_text().splitlines():
        start, _, length = map(int, line.split())
        if start <= number < start + length:
            return True
    return False
