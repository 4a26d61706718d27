"""What a model answers, as far as its file tells: the shape of its first output."""

from __future__ import annotations

from planish.contract.architectures import Answer
from planish.gate.document import Value
from planish.gate.symbols import read_size


def program_answer(program: Value) -> Answer | None:
    """Return what an exported program answers; None where its first output is no tensor."""
    specs = program["graph_module"]["signature"]["output_specs"].items()
    unions = [spec.union() for spec in specs]
    outputs = [spec["arg"].union() for kind, spec in unions if kind == "user_output"]
    if not outputs or outputs[0][0] != "as_tensor":
        return None
    name = outputs[0][1]["name"].text()
    sizes = program["graph_module"]["graph"]["tensor_values"][name]["sizes"].items()
    return tuple(size if isinstance(size, int) else None for size in map(read_size, sizes[1:]))


def differ(one: Answer | None, other: Answer | None) -> bool:
    """Tell whether two answers are surely of different shapes."""
    if one is None or other is None:
        return False
    pairs = zip(one, other, strict=False)
    return len(one) != len(other) or any(a != b for a, b in pairs if None not in (a, b))
