"""The walls between the layers: what an import drags in is looked at in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

HEAVY = {"torch", "onnxruntime", "onnx", "numpy"}
DOOR = "planish"
WALLS = {
    DOOR: HEAVY | {"fastapi", "starlette", "celery", "redis", "service", "worker"},
    "planish.contract": HEAVY
    | {"fastapi", "celery", "redis", "httpx", "typer", "service", "worker"},
    "planish.gate": HEAVY | {"fastapi", "celery", "redis", "httpx", "service", "worker"},
    "planish.store": HEAVY | {"fastapi", "starlette", "celery", "httpx", "service", "worker"},
    "planish.client": HEAVY | {"fastapi", "celery", "redis", "service", "worker"},
    "planish.cli": HEAVY | {"fastapi", "celery", "service", "worker"},
    "service": HEAVY | {"worker"},
    "worker.engine": {"celery", "redis", "fastapi", "starlette", "service", "httpx", "pyarrow"},
    "worker": {"torch", "fastapi", "starlette", "service"},
}
OUTSIDE = {"worker": "worker.engine"}

SCRIPT = """
import importlib, pkgutil, sys
name, outside, entries = sys.argv[1], sys.argv[2], sys.argv[3].split(",")

def walk(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if found.name != outside and found.name.rsplit(".", 1)[-1] not in entries:
            module = importlib.import_module(found.name)
            if found.ispkg:
                walk(module)

package = importlib.import_module(name)
if name != "planish":
    walk(package)
print(" ".join(sorted(sys.modules)))
"""

# Modules on the far side of the wall: they are only ever started as processes of their own.
ENTRIES = {"worker": "child,zygote,demo_model,join,converter,__main__"}


@pytest.mark.parametrize("package", sorted(WALLS))
def test_package_imports_stay_inside_their_wall(package: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, package, OUTSIDE.get(package, ""), ENTRIES.get(package, "")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    roots = {name.partition(".")[0] for name in run.stdout.split()}
    assert not roots & WALLS[package], f"{package} drags in {sorted(roots & WALLS[package])}"
