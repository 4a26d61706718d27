"""``python -m worker.engine.save.compile PROGRAM PACKAGE``: a ``.pt2`` of ours to native code.

Standard input holds a JSON object of texts that go into the package beside the library.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import torch
import torch._inductor
from torch.ao.quantization.fx import _decomposed  # noqa: F401  # registers the q/dq operators

_BATCH = 2


def compile_program(program: Path, package: Path, metadata: dict[str, str]) -> None:
    """Compile an exported program, which this worker wrote itself, for this processor.

    Args:
        program: the ``.pt2``; `torch.export.load` runs what it holds, so never an upload.
        package: the ``.pt2`` package to write.
        metadata: noted in the package.
    """
    exported = torch.export.load(program)
    placeholders = [n for n in exported.graph_module.graph.nodes if n.op == "placeholder"]
    wanted = set(exported.graph_signature.user_inputs)
    values = [node.meta["val"] for node in placeholders if node.name in wanted]
    exported.example_inputs = (tuple(map(_example, values)), {})
    torch._inductor.aoti_compile_and_package(
        exported,
        package_path=str(package),
        inductor_configs={
            "compile_threads": 1,
            "cpp_cache_precompile_headers": False,
            "aot_inductor.precompile_headers": False,
            "aot_inductor.metadata": metadata,
            "aot_inductor.enable_line_tables": False,
        },
    )


def _example(value: torch.Tensor) -> torch.Tensor:
    sizes = [size if isinstance(size, int) else _BATCH for size in value.shape]
    return torch.zeros(sizes, dtype=value.dtype)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    compile_program(Path(sys.argv[1]), Path(sys.argv[2]), json.load(sys.stdin))
