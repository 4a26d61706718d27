"""Networks of Hugging Face's transformers: the scalars that we build them from, and their heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from planish.contract.architectures.base import BATCH, Answer, ArchitectureConfig
from planish.contract.spec import InputDeclaration

TRANSFORMERS = "transformers"
SEQUENCE = "sequence"
IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"

Vocabulary = Annotated[int, Field(ge=2, le=1_000_000, description="Tokens.")]
Width = Annotated[int, Field(ge=1, le=16_384, description="Hidden width.")]
Inner = Annotated[int, Field(ge=1, le=131_072, description="Width inside of the MLP.")]
Layers = Annotated[int, Field(ge=1, le=256, description="Blocks.")]
Heads = Annotated[int, Field(ge=1, le=512, description="Attention heads.")]
Positions = Annotated[int, Field(ge=2, le=1_048_576, description="Longest sequence.")]
Epsilon = Annotated[float, Field(gt=0, le=0.1, description="In the norms.")]
Dropout = Annotated[float, Field(ge=0, lt=1, description="While training.")]
Token = Annotated[int, Field(ge=0, le=1_000_000, description="Of padding.")]
Activation = Literal[
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "tanh"
]

BASE, EMBEDDING = "base", "embedding"
SEQUENCE_CLASSES, TOKEN_CLASSES = "sequence_classification", "token_classification"
MASKED_LM, CAUSAL_LM, IMAGE_CLASSES = "masked_lm", "causal_lm", "image_classification"


class PublishedConfig(ArchitectureConfig):
    """Base of the types of transformers that Planish builds.

    Keys are those of their ``config.json``, plus `head`, which takes the place of its
    `architectures`.

    Attributes:
        classes: the class of transformers for each head.
        also: further class names that a ``config.json`` may state, and the head they stand for.
    """

    library: ClassVar[str] = TRANSFORMERS
    classes: ClassVar[Mapping[str, str]]
    also: ClassVar[Mapping[str, str]] = {}

    @property
    def head_name(self) -> str:
        """Which head the network has."""
        return str(getattr(self, "head", BASE))

    @property
    def class_name(self) -> str:
        """The class of transformers that is built."""
        return self.classes[self.head_name]

    @classmethod
    def heads(cls) -> Mapping[str, str]:
        """Return the head of each class name."""
        own = {name: head for head, name in cls.classes.items() if head != EMBEDDING}
        return {**own, **cls.also}

    @classmethod
    def published_name(cls) -> str:
        """Return what a ``config.json`` calls this type; it may have more names here."""
        bases = [base for base in cls.__mro__ if "classes" in base.__dict__]
        return str(bases[0].__dict__["architecture"])


class TextConfig(PublishedConfig):
    """Base of what takes token ids."""

    usual: ClassVar[tuple[str, ...]] = (IDS, MASK)
    optional: ClassVar[tuple[str, ...]] = ()

    def longest(self) -> int | None:
        """Return the longest sequence that the network has positions for; None: any."""
        return None

    def width(self) -> int:
        """Return the width of the hidden states."""
        raise NotImplementedError

    def inputs(self) -> tuple[InputDeclaration, ...]:
        """Return token ids, and their mask where the type usually takes one."""
        return tuple(
            InputDeclaration(name=name, shape=(BATCH, SEQUENCE), dtype="int64")
            for name in self.usual
        )

    def accepts(self, stated: Sequence[InputDeclaration]) -> bool:
        """Tell whether these are token ids with inputs that go with them, all of one length."""
        names = [item.name for item in stated]
        lengths = {item.shape[1:] for item in stated}
        return (
            IDS in names
            and len(set(names)) == len(names)
            and set(names) <= {IDS, MASK, *self.optional}
            and all(item.dtype == "int64" and item.shape[0] == BATCH for item in stated)
            and len(lengths) == 1
            and self._fits(lengths.pop())
        )

    def input_words(self) -> str:
        """Say which inputs there may be, and their shape."""
        longest = self.longest()
        most = f" of at most {longest}" if longest else ""
        names = ", ".join((IDS, MASK, *self.optional))
        return f"of {names}, {IDS} is needed; the length may be a name or a number{most}"

    def answer(self) -> Answer | None:
        """Return the shape of logits, embeddings or hidden states."""
        vocabulary, labels = (getattr(self, name, None) for name in ("vocab_size", "num_labels"))
        shapes: dict[str, Answer] = {
            EMBEDDING: (self.width(),),
            SEQUENCE_CLASSES: (labels,),
            TOKEN_CLASSES: (None, labels),
            MASKED_LM: (None, vocabulary),
            CAUSAL_LM: (None, vocabulary),
        }
        return shapes.get(self.head_name, (None, self.width()))

    def _fits(self, rest: tuple[int | str, ...]) -> bool:
        if len(rest) != 1:
            return False
        longest = self.longest()
        size = rest[0]
        return isinstance(size, str) or longest is None or size <= longest
