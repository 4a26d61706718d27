"""Where the two apps lie, and whether this environment can run them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import planish
from planish.contract.errors import PlanishError

# One module of each extra's heart; importing any of them here would cost seconds.
SERVICE_MODULES = ("fastapi", "uvicorn", "uvloop", "httptools", "celery", "redis")
WORKER_MODULES = ("torch", "torchao", "onnx", "onnxruntime", "celery", "redis")
API_MODULE = "service.main"
STORAGE_SECRETS = ("AWS_", "PLANISH_STORAGE_URLS")
STORE_MODULES = ("redis", "hiredis")


class CannotStart(PlanishError):
    """A process of the service cannot start here."""

    code, title = "cannot_start", "The service cannot start"


def apps_folder() -> Path:
    """Return the folder that holds ``service`` and ``worker``.

    In a wheel that is ``planish/_apps``, in a checkout the root. It is put on the path of the
    processes that are started, and only there: both names are too generic for anybody else's.
    """
    package = Path(planish.__file__).resolve().parent
    for folder in (package / "_apps", package.parent):
        if (folder / "service" / "main.py").is_file():
            return folder
    raise CannotStart(
        f"{package} carries neither the API nor the worker; install the planish wheel"
    )


def require(extra: str, modules: tuple[str, ...]) -> None:
    """Check that an extra is installed.

    Raises:
        CannotStart: with the pip command that installs it.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise CannotStart(
            f"not installed: {', '.join(missing)}; install it with: pip install 'planish[{extra}]'"
        )


def environment(settings: Mapping[str, str], module: str = "") -> dict[str, str]:
    """Return the environment of a process that runs one of the apps.

    The API alone fetches from a storage; every other process gets none of its credentials.
    """
    path = os.pathsep.join(filter(None, [str(apps_folder()), os.environ.get("PYTHONPATH")]))
    hidden = () if module == API_MODULE else STORAGE_SECRETS
    own = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return {**own, **settings, "PYTHONPATH": path}


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs an app's module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
