"""Write a model as native code: a shared library that torch's AOTInductor makes for this processor.

The compiler runs in a process of its own, in a folder that is gone afterwards. The package then
loses the C++ sources, and the library the paths of the machine that it was built on.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

from planish.contract.errors import InvalidModel, MissingDependency
from worker.engine.model import Model
from worker.engine.save.pt2 import save_pt2

COMPILERS = ("g++", "clang++")
INPUTS = "PLANISH_INPUTS"
_SHOWN_ERROR = 300
_KEPT = (".so", "_metadata.json", "/archive_format", "/archive_version", "/byteorder", "/version")
_OWN_PATH = re.compile(rb"/[\x21-\x7e]{2,400}\.(?:h|hpp|cpp|c|py)\b")


def require_compiler() -> str:
    """Return the C++ compiler of this machine.

    Raises:
        MissingDependency: there is none.
    """
    named = os.environ.get("CXX")
    found = next(
        (path for name in (named, *COMPILERS) if name and (path := shutil.which(name))), None
    )
    if found is None:
        raise MissingDependency(
            "output aotinductor needs a C++ compiler, which this worker lacks: install g++ (Debian "
            "and Ubuntu: apt install g++), or leave aotinductor out of outputs"
        )
    return found


def save_aotinductor(model: Model, path: Path) -> None:
    """Compile a model for the processor of this machine, with dynamic batch.

    Args:
        model: float, cast, static int8 or of packed weights.
        path: the ``.aoti.pt2`` to write; its folder exists.

    Raises:
        MissingDependency: there is no C++ compiler.
        InvalidModel: the graph cannot be compiled.
    """
    compiler = require_compiler()
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        program, package = Path(folder, "program.pt2"), Path(folder, "compiled.pt2")
        save_pt2(model, program)
        # A cache of its own: nothing of another job is found there, nothing of this one stays.
        cache = {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder, "cache")), "CXX": compiler}
        paths = {"PYTHONPATH": os.pathsep.join(item for item in sys.path if item)}
        done = subprocess.run(
            [sys.executable, "-m", "worker.engine.save.compile", str(program), str(package)],
            input=json.dumps({INPUTS: json.dumps(_inputs(model))}),
            env={**os.environ, **cache, **paths},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not package.is_file():
            last = done.stderr.strip().rpartition("\n")[2][-_SHOWN_ERROR:]
            raise InvalidModel(f"the model cannot be written as aotinductor: {last or 'no word'}")
        _repack(package, path, folder.encode())


def _inputs(model: Model) -> list[list[object]]:
    return [
        [item.name, list(item.shape), str(item.dtype).removeprefix("torch.")]
        for item in model.inputs
    ]


def _repack(package: Path, path: Path, scratch: bytes) -> None:
    """Copy a package without its sources; what names this machine is overwritten."""
    with zipfile.ZipFile(package) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            if not member.filename.endswith(_KEPT):
                continue
            content = source.read(member)
            if member.filename.endswith(".so"):
                content = anonymous(content, scratch)
            _, _, rest = member.filename.partition("/")
            target.writestr(zipfile.ZipInfo(f"model/{rest}"), content)


def anonymous(library: bytes, *places: bytes) -> bytes:
    """Overwrite absolute paths of source files in a library, and some places; its length stays.

    They stand in messages of failed assertions, nowhere else.
    """
    library = _OWN_PATH.sub(_only_the_name, library)
    for place in (*places, os.fsencode(Path(torch.__file__).parents[1])):
        library = library.replace(place, b"." * len(place))
    return library


def _only_the_name(found: re.Match[bytes]) -> bytes:
    folder, _, name = found[0].rpartition(b"/")
    stem, dot, ending = name.rpartition(b".")
    kept = stem + dot + ending if ending != b"py" else b"." * len(name)
    return b"." * (len(folder) + 1) + kept
