"""A Python that can import what a requirements.txt names, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def environment_of(requirements: Path, folder: Path) -> Path:
    """Fill a folder with links to the named packages, and to what they need themselves.

    The versions must be the installed ones. The folder is all that `run_alone` can import from.
    """
    folder.mkdir()
    for name in _closure(requirements):
        distribution = metadata.distribution(name)
        places = {path.parts[0] for path in distribution.files or ()}
        for place in places - {"..", "__pycache__"}:
            target = Path(str(distribution.locate_file(place)))
            if not (folder / place).exists():
                (folder / place).symlink_to(target)
    return folder


def _closure(requirements: Path) -> Iterator[str]:
    lines = (line.partition("#")[0].strip() for line in requirements.read_text().splitlines())
    waiting = [Requirement(line) for line in lines if line]
    for stated in waiting:
        version = metadata.version(stated.name).partition("+")[0]
        assert stated.specifier.contains(version), f"{stated} is stated, {version} is here"
    seen: set[str] = set()
    while waiting:
        wanted = waiting.pop()
        if wanted.name in seen or (wanted.marker is not None and not wanted.marker.evaluate()):
            continue
        seen.add(wanted.name)
        yield wanted.name
        waiting += [Requirement(text) for text in metadata.requires(wanted.name) or ()]


def run_alone(packages: Path, folder: Path, *arguments: str) -> str:
    """Run a script of a folder with these packages alone; return what it prints."""
    # -S: no site-packages; -B: nothing is written beside the links.
    done = subprocess.run(
        [sys.executable, "-S", "-B", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(packages), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
