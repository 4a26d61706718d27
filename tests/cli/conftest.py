"""The command line as a user runs it: processes, a real service, files on disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from planish.contract.errors import PlanishError
from planish.launch.stack import Stack, StackSettings
from tests.conftest import ROOT, missing
from tests.engine.digits import Digits, trained_digits

RECIPE = '[{"op": "quantize", "mode": "static", "samples": 128}]'


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def environment(url: str | None = None) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PLANISH_")}
    named = {"PLANISH_URL": url} if url else {}
    return {**kept, **named, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "planish.cli", *map(str, arguments)]


def run(*arguments: object, url: str | None = None, cwd: Path | None = None) -> Done:
    done = subprocess.run(
        command(*arguments),
        env=environment(url),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str

    def run(self, *arguments: object) -> Done:
        return run(*arguments, url=self.url)

    def json(self, *arguments: object) -> Any:
        done = self.run(*arguments, "--json")
        assert done.code == 0, done.err
        return done.json


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return trained_digits(tmp_path_factory.mktemp("digits"), epochs=4)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    stack = Stack(StackSettings(folder / "data", log=folder / "serve.log"))
    try:
        stack.start()
    except PlanishError as error:
        stack.stop()
        missing(error.detail)
    yield Service(stack.url)
    stack.stop()
