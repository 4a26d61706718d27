"""What a model takes: one `Signature` for each input."""

from __future__ import annotations

from dataclasses import dataclass

BATCH = "batch"


@dataclass(frozen=True)
class Signature:
    """One model input: a text dimension (``batch``) may have any size; `dtype` is numpy's."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.name} {show_shape(self.shape)} {self.dtype}"


def show_shape(shape: tuple[int | str, ...]) -> str:
    """Return a shape for people: ``(batch, 3, 32, 32)``."""
    return "(" + ", ".join(str(size) for size in shape) + ")"
