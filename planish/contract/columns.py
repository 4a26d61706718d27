"""What became of the columns of a parquet file, written beside the arrays that came out of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_SUFFIX = ".columns.json"


class Columns(BaseModel):
    """Which array is what.

    Attributes:
        names: of the arrays, by the model input, or ``targets``, that they are.
        has_images: whether images were decoded: they lie with their channels last.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: dict[str, str] = Field(max_length=1000)
    has_images: bool

    def write(self, arrays: Path) -> None:
        """Write it beside a file of arrays."""
        _beside(arrays).write_text(self.model_dump_json())

    @staticmethod
    def read(arrays: Path) -> Columns | None:
        """Return what lies beside a file of arrays; None where nothing does."""
        try:
            return Columns.model_validate_json(_beside(arrays).read_bytes())
        except FileNotFoundError:
            return None


def _beside(arrays: Path) -> Path:
    return arrays.with_name(arrays.name + _SUFFIX)
