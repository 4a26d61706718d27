from __future__ import annotations

import inspect
import subprocess
import sys

import planish
from planish.client.job import JobHandle
from planish.client.job_async import AsyncJobHandle


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_public_name_is_there() -> None:
    for name in planish.__all__:
        assert getattr(planish, name).__name__ == name
    assert set(planish.__all__) <= set(dir(planish))


def test_the_door_opens_without_the_http_library() -> None:
    script = "import planish.contract.spec, sys; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_both_clients_have_the_same_methods() -> None:
    for one, other in ((planish.Client, planish.AsyncClient), (JobHandle, AsyncJobHandle)):
        ours, theirs = public(one), public(other)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert list(ours[name].parameters) == list(theirs[name].parameters), name
