"""With the guards off the canary fires: the corpus' silence is the gate's doing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.hostile.canary import Canary
from tests.hostile.corpus import CASES

# What careless code would do with a file: each reader with the cases that must then run.
READERS = {
    "import torch; torch.load({path!r}, weights_only=False)": (
        "pickle_calls_exec",
        "pickle_calls_exec_by_stack_global",
        "pickle_of_protocol_zero",
        "old_layout_with_code_in_its_weights",
    ),
    "import torch; torch.export.load({path!r})": ("pickle_as_sample_inputs", "pickled_weight"),
    "import pickle; pickle.load(open({path!r}, 'rb'))": ("bare_pickle", "pickle_that_is_a_zip"),
    "import numpy as n; n.load({path!r}, allow_pickle=True)['inputs']": ("array_of_objects",),
    "import sympy; from sympy import Symbol; sympy.sympify({code!r})": ("code_as_a_size",),
}


def test_the_canary_is_seen_when_it_fires(canary: Canary) -> None:
    assert canary.fired() == []
    exec(canary.code)
    assert len(canary.fired()) == 2
    assert canary.fired() == []


def test_what_the_gate_refuses_would_run_without_it(tmp_path: Path) -> None:
    """One scratch process opens them as careless code would; each must leave its mark."""
    by_name = {case.name: case for case in CASES}
    lines, canaries = [], {}
    for reader, names in READERS.items():
        for name in names:
            folder = tmp_path / name
            folder.mkdir()
            canary = canaries[name] = Canary(folder)
            path = folder / "file"
            path.write_bytes(by_name[name].make(canary).files[-1][2])
            statement = reader.format(path=str(path), code=canary.code.replace(";", " or"))
            lines += ["try:", f"    {statement}", "except Exception: 0"]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join(lines)],
        check=True,
        timeout=300,
        capture_output=True,
    )
    fired = {name: len(canary.fired()) for name, canary in canaries.items()}
    for canary in canaries.values():
        canary.close()
    assert min(fired.values()) >= 1, fired
