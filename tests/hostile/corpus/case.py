"""One hostile upload and the answer that it must get."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.hostile.canary import Canary
from tests.hostile.fuzz import seeds

HARMLESS = "harmless"
"""The upload is taken: what is hostile in it is never opened."""

ARCHITECTURE = {
    "architecture": {"library": "planish", "name": "resnet8", "config": {}},
}


@dataclass(frozen=True)
class Upload:
    """Files as parts of a form: role, file name, content; and the spec that goes with them."""

    files: tuple[tuple[str, str, bytes], ...]
    spec: dict[str, Any] = field(default_factory=dict)


Make = Callable[[Canary], Upload]


@dataclass(frozen=True)
class Case:
    """A hostile upload: `codes` are the answers that are right, `about` says what it tries.

    `over_http`: only the front desk can refuse it; the gate never sees it.
    """

    name: str
    codes: tuple[str, ...]
    about: str
    make: Make
    over_http: bool = False


CASES: list[Case] = []


def hostile(*codes: str, over_http: bool = False) -> Callable[[Make], Make]:
    """Add a function that makes an upload to the corpus, under its name."""

    def add(make: Make) -> Make:
        CASES.append(Case(make.__name__, codes, (make.__doc__ or "").strip(), make, over_http))
        return make

    return add


def model(raw: bytes, *parts: tuple[str, bytes], name: str = "model.bin") -> Upload:
    """Return an upload of a model that brings its own graph, with further named parts."""
    files = [("model", name, raw), *(("model", part, content) for part, content in parts)]
    return Upload(tuple(files), {"recipe": [{"op": "simplify"}]})


def weights(raw: bytes) -> Upload:
    """Return an upload of bare weights with an architecture."""
    spec = {"model": ARCHITECTURE, "recipe": [{"op": "simplify"}]}
    return Upload((("model", "weights.bin", raw),), spec)


def data(raw: bytes, task: str = "classification") -> Upload:
    """Return an upload of data for a model of one linear layer."""
    spec = {"data": {"task": task}, "recipe": [{"op": "quantize", "mode": "static"}]}
    return Upload((("model", "model.pt2", seeds.pt2()), ("data", "data.bin", raw)), spec)
