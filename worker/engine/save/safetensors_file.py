"""Write a model as safetensors with an architecture.json, from which load.py rebuilds it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from safetensors.torch import save_file

from planish.contract.wire import ARCHITECTURE
from worker.engine.load.pt2 import read_pt2
from worker.engine.load.remodularize import remodularize
from worker.engine.model import Model
from worker.engine.save.architecture import describe
from worker.engine.save.pt2 import save_pt2


def save_safetensors(model: Model, path: Path) -> None:
    """Save the weights as safetensors, and the graph beside them as ``architecture.json``.

    The model goes through its ``.pt2`` form: whatever layers the passes made are then torch.nn
    layers and ATen calls. Integers stay integers in the file; the graph turns them into floats.

    Args:
        model: float, cast, static int8 or of packed weights.
        path: the ``.safetensors`` to write; its folder exists.

    Raises:
        InvalidModel: the graph cannot be described.
    """
    with tempfile.TemporaryDirectory(prefix="planish-") as folder:
        program = Path(folder, "model.pt2")
        save_pt2(model, program)
        graph, _ = read_pt2(program)
    description, state = describe(remodularize(graph), model.inputs, path.name)
    save_file(state, path, {"format": "pt", "architecture": ARCHITECTURE})
    text = json.dumps(description, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.with_name(ARCHITECTURE).write_text(text + "\n", encoding="utf-8")
