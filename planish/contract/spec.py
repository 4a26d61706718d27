"""What a client asks for: the body of ``POST /jobs`` and ``POST /plans``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)

from planish.contract.parts import MAX_PARTS, PART_NAME_PATTERN, repeated
from planish.contract.recipe import Recipe

FILE_ID_PATTERN = r"^sha256:[0-9a-f]{64}$"
FileId = Annotated[str, Field(pattern=FILE_ID_PATTERN)]
LabelText = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^=\x00-\x1f]+$")]
PARTS = ("model", "data", "test_data", "teacher", "student")


class Strict(BaseModel):
    """Base of everything in a spec: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Architecture(Strict):
    """The code that bare weights belong to; named, never sent."""

    library: str = Field(min_length=1, max_length=64, description="e.g. `planish`")
    name: str = Field(min_length=1, max_length=128, description="e.g. `cifar_resnet`")
    config: dict[str, JsonValue] | None = Field(
        None,
        max_length=100,
        description="Null: that of the uploaded `config.json` (transformers), else the defaults.",
    )


class InputDeclaration(Strict):
    """One input of the model; a text dimension (`batch`) is dynamic."""

    name: str = Field(min_length=1, max_length=200)
    shape: tuple[
        Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1, max_length=64)], ...
    ] = Field(min_length=1, max_length=8)
    dtype: Literal["float32", "int64", "int32", "bool"] = "float32"


class ModelSpec(Strict):
    """How the model file is to be read."""

    format: Literal["auto", "pt2", "safetensors", "state_dict", "onnx"] = "auto"
    architecture: Architecture | None = None
    inputs: tuple[InputDeclaration, ...] | None = Field(None, min_length=1, max_length=64)


class Preprocess(Strict):
    """From stored values to model input: ``(x * scale - mean) / std``, per channel.

    `mean` and `std` hold one value, or one for each channel. `layout` says how stored images lie;
    `auto` tells it from the model's input shape. `resize` is for the images of .parquet files: the
    shorter side becomes so many pixels, and the middle of the model's height and width is cut out.
    """

    scale: float = Field(1.0, gt=0)
    mean: tuple[float, ...] = Field((0.0,), min_length=1, max_length=65536)
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((1.0,), min_length=1, max_length=65536)
    layout: Literal["auto", "nhwc", "nchw"] = "auto"
    resize: int | None = Field(
        None,
        ge=1,
        le=8192,
        description="Pixels of the shorter side; null takes images as they are.",
    )


Task = Literal["classification", "regression", "language_modeling", "embedding", "none"]


class DataSpec(Strict):
    """What the data files mean."""

    task: Task = "classification"
    preprocess: Preprocess = Field(default_factory=Preprocess)
    window: int | None = Field(
        None,
        ge=2,
        le=1_048_576,
        description="Tokens in one sample of language_modeling, for a model that takes any length.",
    )


class Target(Strict):
    """The device and runtime that the result is made and measured for."""

    device: Literal["cpu", "cuda"] = "cpu"
    runtime: Literal["onnxruntime", "openvino", "torch"] = "onnxruntime"
    batch_size: int = Field(1, ge=1, le=1024)
    threads: int = Field(2, ge=1, le=256)
    tune: bool = Field(
        False, description="Also measure other threads, graph levels and batch sizes."
    )

    @model_validator(mode="after")
    def _runs_there(self) -> Target:
        if self.device == "cuda" and self.runtime != "torch":
            raise ValueError(
                f'{self.runtime} is measured on "cpu" only; set runtime to "torch" for "cuda"'
            )
        return self


class Resources(Strict):
    """What the job may use."""

    gpus: int = Field(0, ge=0, le=1024)
    nodes: int = Field(1, ge=1, le=1024, description="Machines that train together.")
    run_seconds: int = Field(3600, ge=1, le=604_800)
    start_by_seconds: int = Field(86_400, ge=1, le=2_592_000)


class NamedFile(Strict):
    """One of several uploaded files that belong together, under the name that the others know."""

    id: FileId
    name: str = Field(pattern=PART_NAME_PATTERN, description="e.g. `model.safetensors`")


def _in_order(files: tuple[NamedFile, ...]) -> tuple[NamedFile, ...]:
    """Order by name, so that the same files are the same request however they were listed."""
    if (name := repeated(file.name for file in files)) is not None:
        raise ValueError(f"the name {name!r} stands twice; each file needs a name of its own")
    return tuple(sorted(files, key=lambda file: file.name))


FileSet = Annotated[
    tuple[NamedFile, ...],
    Field(min_length=1, max_length=MAX_PARTS),
    AfterValidator(_in_order),
]
ONE_FILE, FILE_SET = "one_file", "file_set"


def _kind(value: object) -> str:
    return FILE_SET if isinstance(value, list | tuple) else ONE_FILE


def _alone(value: str | tuple[NamedFile, ...]) -> str | tuple[NamedFile, ...]:
    """A list of one file is that file: nobody else knows its name."""
    return value[0].id if isinstance(value, tuple) and len(value) == 1 else value


Uploaded = Annotated[
    Annotated[FileId, Tag(ONE_FILE)] | Annotated[FileSet, Tag(FILE_SET)],
    Discriminator(_kind),
    AfterValidator(_alone),
]
"""What was uploaded for one role: a file, or several with their names."""


class Files(Strict):
    """File ids of the uploaded parts; where a part is several files, each with its name."""

    model: Uploaded
    data: Uploaded | None = None
    test_data: Uploaded | None = None
    teacher: Uploaded | None = None
    student: Uploaded | None = None

    def given(self) -> Mapping[str, str | tuple[NamedFile, ...]]:
        """Return what was uploaded, by role."""
        return {part: value for part in PARTS if (value := getattr(self, part)) is not None}

    def pointers(self) -> tuple[tuple[str, str], ...]:
        """Return every place of a file id in the spec, as a JSON pointer, and the id there."""
        found: list[tuple[str, str]] = []
        for role, value in self.given().items():
            if isinstance(value, str):
                found.append((f"/files/{role}", value))
            else:
                found += ((f"/files/{role}/{at}/id", file.id) for at, file in enumerate(value))
        return tuple(found)


class Webhook(Strict):
    """An address that gets a signed POST when the job is finished (Standard Webhooks)."""

    url: str = Field(min_length=1, max_length=2000, description="https://…")


Output = Literal["onnx", "pt2", "openvino", "safetensors", "aotinductor"]
FORMATS: dict[str, Output] = {"onnxruntime": "onnx", "openvino": "openvino", "torch": "pt2"}
"""What each runtime loads; the default of `outputs`."""


def _unique(outputs: tuple[Output, ...]) -> tuple[Output, ...]:
    if len(set(outputs)) != len(outputs):
        raise ValueError("each output may be named once")
    return outputs


def _output_of_the_runtime(values: dict[str, object]) -> tuple[Output, ...]:
    target = values.get("target")
    return (FORMATS[target.runtime if isinstance(target, Target) else "onnxruntime"],)


class Spec(Strict):
    """A job: model, data, recipe, target, outputs and limits.

    `files` is null in the ``spec`` part of a multipart request; the file parts fill it.
    """

    name: str | None = Field(None, min_length=1, max_length=200)
    labels: dict[LabelText, LabelText] = Field(default_factory=dict, max_length=16)
    seed: int = Field(0, ge=0, lt=2**32)
    model: ModelSpec = Field(default_factory=ModelSpec)
    teacher: ModelSpec | None = Field(None, description="How an uploaded teacher is to be read.")
    student: ModelSpec | None = Field(
        None,
        description="A smaller network to optimize in the model's place: how its file is to be "
        "read, or its architecture alone, which starts at random weights.",
    )
    data: DataSpec = Field(default_factory=DataSpec)
    recipe: Recipe | None = None
    goal: JsonValue = None
    target: Target = Field(default_factory=Target)
    outputs: Annotated[tuple[Output, ...], AfterValidator(_unique)] = Field(
        default_factory=_output_of_the_runtime, min_length=1
    )
    resources: Resources = Field(default_factory=Resources)
    webhook: Webhook | None = Field(None, description="Whom to tell when the job is finished.")
    files: Files | None = None

    @model_validator(mode="after")
    def _has_its_device(self) -> Spec:
        if self.target.device == "cuda" and self.resources.gpus < 1:
            raise ValueError('target.device "cuda" needs a GPU; set resources.gpus to 1 or more')
        return self

    @model_validator(mode="after")
    def _recipe_or_goal(self) -> Spec:
        if self.recipe is not None and self.goal is not None:
            raise ValueError("give either recipe or goal, not both")
        if self.goal is not None:
            raise ValueError("goals are not offered by this version; give a recipe")
        if self.recipe is None:
            raise ValueError("a recipe is needed: a list of passes, see GET /passes")
        return self
