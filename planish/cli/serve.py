"""The service's processes: all at once (serve), or one by one (api, worker)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from planish.cli.console import JsonFlag, out, print_json, say
from planish.launch.apps import (
    SERVICE_MODULES,
    WORKER_MODULES,
    CannotStart,
    command,
    environment,
    require,
)
from planish.launch.stack import Stack, StackSettings
from planish.store.audit import Audit
from planish.store.durable import put_new
from planish.store.keys import Keys, Scope

app = typer.Typer()

LOOK_SECONDS = 0.2
FIRST_KEY = "first-key"
LOOPBACK = ("127.0.0.1", "::1", "localhost")

HostOption = Annotated[str, typer.Option("--host", help="Address to listen on.")]
PortOption = Annotated[int, typer.Option("--port", min=0, max=65535, help="0: a free one.")]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="PLANISH_DATA_DIR",
        metavar="DIR",
        help="Everything that is kept; default: planish in the user's data folder.",
    ),
]
RedisOption = Annotated[
    str | None,
    typer.Option(
        "--redis-url", envvar="PLANISH_REDIS_URL", metavar="URL", help="A running Redis or Valkey."
    ),
]


@app.command()
def serve(
    host: HostOption = "127.0.0.1",
    port: PortOption = 8000,
    data_dir: DataDirOption = None,
    redis_url: RedisOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Jobs at a time.")] = 1,
    json: JsonFlag = False,
) -> None:
    """Run API, worker and Redis together; Ctrl-C drains and stops all of it."""
    folder = data_dir or default_data_dir()
    minted = _first_key(folder, host)
    stack = Stack(StackSettings(folder, host, port, redis_url, workers))
    stopping = _Stopping(stack)
    try:
        stack.start()
        if json:
            print_json({"url": stack.url, "data_dir": str(folder)})
        else:
            out.print(f"Planish is ready on {stack.url}   (docs: {stack.url}/docs)", markup=False)
            say(f"data: {folder}   stop: Ctrl-C")
            if minted is not None:
                say(f"a first key was made; it lies in {minted}, and its hash in the data folder")
        while (ended := stack.ended()) is None:
            time.sleep(LOOK_SECONDS)
        raise CannotStart(f"the {ended} ended by itself; see its log above")
    except KeyboardInterrupt:
        say("stopping: running jobs go back to the queue (again: at once)")
    finally:
        stopping.begun = True
        stack.stop()


@app.command()
def api(
    host: Annotated[str | None, typer.Option("--host", help="PLANISH_HOST, 127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option("--port", help="PLANISH_PORT, 8000")] = None,
    data_dir: DataDirOption = None,
    redis_url: RedisOption = None,
) -> None:
    """Run the API alone."""
    require("service", SERVICE_MODULES)
    options = (("--host", host), ("--port", port))
    _become("service.main", dict(options), _shared(data_dir, redis_url))


@app.command()
def worker(
    gpus: Annotated[
        str | None, typer.Option("--gpus", metavar="0,1", help="CUDA devices for its jobs.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Jobs at a time.")] = None,
    join: Annotated[
        bool, typer.Option("--join", help="Take no jobs: train with other machines' jobs.")
    ] = False,
    data_dir: DataDirOption = None,
    redis_url: RedisOption = None,
) -> None:
    """Run a worker alone; it takes jobs from the Redis of the API."""
    require("worker", WORKER_MODULES)
    options = {"--concurrency": workers, "--gpus": gpus, "--join": "" if join else None}
    _become("worker.main", options, _shared(data_dir, redis_url))


def _first_key(folder: Path, host: str) -> Path | None:
    """Make a key where other machines can reach the service and nobody has one yet.

    Returns:
        The file (mode 0600) that holds the key; None if none was needed.
    """
    if host in LOOPBACK or os.environ.get("PLANISH_API_KEY"):
        return None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = Keys(folder)
    if keys.any():
        return None
    new = keys.create("first key", scopes=tuple(Scope))
    Audit(folder).record("key.created", tenant="default", key_id=new.record.id, target="first key")
    path = folder / FIRST_KEY
    put_new(path, new.secret.encode() + b"\n")
    return path


def default_data_dir() -> Path:
    """Return ``planish`` in the user's data folder (XDG base directories)."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "planish"


def _shared(data_dir: Path | None, redis_url: str | None) -> dict[str, str]:
    folder = data_dir or default_data_dir()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    redis = {"PLANISH_REDIS_URL": redis_url} if redis_url else {}
    return {"PLANISH_DATA_DIR": str(folder.resolve()), **redis}


def _become(
    module: str, options: Mapping[str, str | int | None], shared: Mapping[str, str]
) -> NoReturn:
    """Replace this process by an app's, so that signals reach it directly."""
    given = [
        text
        for key, value in options.items()
        if value is not None
        for text in (key, str(value))
        if text
    ]
    arguments = command(module, *given)
    os.execve(arguments[0], arguments, environment(shared, module))  # noqa: S606 - our own interpreter


class _Stopping:
    """SIGINT and SIGTERM end `serve` in order; a second one ends it at once."""

    def __init__(self, stack: Stack) -> None:
        self.begun = False
        self._stack = stack
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._asked)

    def _asked(self, _number: int, _frame: FrameType | None) -> None:
        if self.begun:
            self._stack.kill()
            return
        self.begun = True
        raise KeyboardInterrupt
