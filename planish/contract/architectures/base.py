"""What every architecture says of itself: config, inputs, answer and source; no code of torch."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from planish.contract.spec import InputDeclaration

OWN_LIBRARY = "planish"
BATCH = "batch"
INPUT = "input"

Classes = Annotated[int, Field(ge=1, le=1_000_000, description="Number of outputs.")]
Answer = tuple[int | None, ...]
"""Sizes of the first output after the batch; None where one varies."""


class ArchitectureConfig(BaseModel, ABC):
    """Base of all configs: frozen, plain scalars, unknown keys refused.

    A class is one architecture. Its docstring is the summary shown to people.

    Attributes:
        library: whose code builds the network.
        architecture: its name there.
        source: paper and section.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    library: ClassVar[str] = OWN_LIBRARY
    architecture: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return what a network of this config usually takes."""

    def accepts(self, stated: Sequence[InputDeclaration]) -> bool:
        """Tell whether a network of this config can be fed so.

        Usually: as many inputs of the same type, rank and channels; names, height and width are
        free.
        """
        usual = self.inputs()
        return len(stated) == len(usual) and all(map(_can_stand_for, stated, usual))

    def input_words(self) -> str:
        """Say what may differ from `inputs`."""
        return "names and the sizes of images may differ"

    def answer(self) -> Answer | None:
        """Return what the network answers for a sample; None where only it can tell."""
        classes = getattr(self, "num_classes", None)
        return (classes,) if isinstance(classes, int) else None


def _can_stand_for(stated: InputDeclaration, usual: InputDeclaration) -> bool:
    return (
        stated.dtype == usual.dtype
        and len(stated.shape) == len(usual.shape)
        and stated.shape[:2] == usual.shape[:2]
        and all(isinstance(size, int) for size in stated.shape[1:])
    )


def image_input(channels: int, height: int, width: int, name: str = INPUT) -> InputDeclaration:
    """Return the declaration of images."""
    return InputDeclaration(name=name, shape=(BATCH, channels, height, width), dtype="float32")


@dataclass(frozen=True)
class ArchitectureEntry:
    """One line of the catalogue.

    Attributes:
        library: e.g. `planish`.
        name: of one architecture, or a pattern that names of several match.
        config: what it takes.
        module: the Python package that builds it; None: Planish itself.
        extra: what to install for it, ``planish[transformers]``; None: nothing.
    """

    library: str
    name: str
    config: type[ArchitectureConfig]
    module: str | None = None
    extra: str | None = None

    @property
    def summary(self) -> str:
        """What it is, in a sentence."""
        return inspect.cleandoc(self.config.__doc__ or "")

    @property
    def source(self) -> str:
        """Paper and section."""
        return self.config.source

    @property
    def inputs(self) -> tuple[InputDeclaration, ...]:
        """What a network of the default config takes."""
        return self.config().inputs()
