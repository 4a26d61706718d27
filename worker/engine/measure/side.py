"""The near end of a measuring process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from planish.contract.errors import JobFailed

_EXIT_SECONDS = 10
_SHOWN_ERROR = 500


class Side:
    """A process that takes a line and answers with one JSON value on a line."""

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[str]) -> None:
        """Talk to `process`, whose standard error goes to the file `errors`."""
        self.name = name
        self._process = process
        self._errors = errors

    def ask(self, line: str) -> object:
        """Send a line and return the answer.

        Raises:
            JobFailed: the process ended; its last words are in the message.
        """
        stdin = self._process.stdin
        if stdin is not None:
            try:
                stdin.write(line + "\n")
                stdin.flush()
            except BrokenPipeError:
                raise self._ended() from None
        return self.hear()

    def hear(self) -> object:
        """Return the next answer; raises `JobFailed` as `ask` does."""
        stdout = self._process.stdout
        line = stdout.readline() if stdout is not None else ""
        if not line:
            raise self._ended()
        return json.loads(line)

    def finish(self) -> object:
        """Close the process's input and return its last answer."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        return self.hear()

    def _ended(self) -> JobFailed:
        self._process.wait(_EXIT_SECONDS)
        self._errors.seek(0)
        last = self._errors.read()[-_SHOWN_ERROR:].strip().rpartition("\n")[2]
        return JobFailed(f"the process measuring {self.name} ended: {last or 'without a word'}")


@contextmanager
def start_side(name: str, module: str, arguments: Sequence[str]) -> Iterator[Side]:
    """Run ``python -m module`` with this process's import paths; it is gone after the block."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        ) as process,
    ):
        try:
            yield Side(name, process, errors)
        finally:
            process.kill()
