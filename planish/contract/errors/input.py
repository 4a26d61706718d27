"""What is wrong with models, data, recipes and specs."""

from __future__ import annotations

from planish.contract.errors.base import PlanishError


class InvalidInput(PlanishError):
    """The bytes are well-formed, but what they say cannot be used."""

    code, title, status = "invalid_input", "The input cannot be used", 422


class InvalidSpec(InvalidInput):
    """The job spec breaks the contract."""

    code, title = "invalid_spec", "The job spec is not valid"


class MissingPart(InvalidInput):
    """A needed file or part is absent or empty."""

    code, title = "missing_part", "A needed part is missing"


class DigestMismatch(InvalidInput):
    """The digest header does not match the body."""

    code, title = "digest_mismatch", "The digest does not match the body"


class StorageUrlNotAllowed(InvalidInput):
    """A storage URL lies outside of what the operator allows."""

    code, title = "storage_url_not_allowed", "Files are not taken from this storage URL"


class StorageUnreadable(InvalidInput):
    """The storage has no such object, or does not let the service read it."""

    code, title = "storage_unreadable", "The file in the storage cannot be read"


class IdempotencyKeyReused(InvalidInput):
    """One Idempotency-Key came with two different bodies."""

    code, title = "idempotency_key_reused", "This Idempotency-Key was used with another body"


class UnsatisfiableResources(InvalidInput):
    """The fleet can never run this job."""

    code, title = "unsatisfiable_resources", "The fleet has not got these resources"


class ConversionFailed(InvalidInput):
    """An upload broke the locked-in process that opens it: a crash, too long, too much memory."""

    code, title = "conversion_failed", "The upload could not be opened"


class FileDenied(ConversionFailed):
    """The file has broken that process before, and is not opened again."""

    code, title = "file_denied", "The file is not opened any more"


class SandboxUnavailable(InvalidInput):
    """The worker's kernel gives no sandbox, and the file is not plain safetensors."""

    code, title = "sandbox_unavailable", "This format is not opened without a sandbox"


class OutputNotAllowed(InvalidInput):
    """The operator does not let this server make an output."""

    code, title = "output_not_allowed", "This server does not make that output"


class InvalidModel(InvalidInput):
    """The model file cannot be read."""

    code, title = "invalid_model", "The model file is not valid"


class UnknownFormat(InvalidModel):
    """The content is none of the known model formats."""

    code, title = "unknown_model_format", "The model's format is not known"


class OperatorNotAllowed(InvalidModel):
    """The graph holds an operator outside the allow list."""

    code, title = "operator_not_allowed", "The model uses an operator that is not supported"


class UnsafeModel(InvalidModel):
    """The file holds code or pickles beyond plain tensors."""

    code, title = "unsafe_model", "The model file carries content that is never executed"


class ArchitectureRequired(InvalidModel):
    """Bare weights came without an architecture."""

    code, title = "architecture_required", "Weights need an architecture"


class UnknownArchitecture(InvalidModel):
    """The named architecture or its config is not known."""

    code, title = "unknown_architecture", "The architecture is not known"


class ArchitectureUnavailable(InvalidModel):
    """The worker lacks the library that builds the architecture."""

    code, title = "architecture_unavailable", "This worker cannot build the architecture"


class StateDictMismatch(InvalidModel):
    """Weights and architecture do not fit each other."""

    code, title = "state_dict_mismatch", "The weights do not fit the architecture"


class InvalidData(InvalidInput):
    """The data file cannot be read or used."""

    code, title = "invalid_data", "The data is not valid"


class InputNotFound(InvalidData):
    """The data has no array for a model input."""

    code, title = "input_not_found", "The data has no array for a model input"


class AmbiguousLayout(InvalidData):
    """Images could be NHWC as well as NCHW."""

    code, title = "ambiguous_layout", "The image layout cannot be told"


class LabelOutOfRange(InvalidData):
    """A label is not an index of a model output."""

    code, title = "label_out_of_range", "A label is outside the model's classes"


class NonFiniteData(InvalidData):
    """The data holds NaN or infinity."""

    code, title = "non_finite_data", "The data holds NaN or infinity"


class InvalidRecipe(InvalidInput):
    """The recipe makes no sense for this model and data."""

    code, title = "invalid_recipe", "The recipe cannot work"


class NotForOnnx(InvalidRecipe):
    """The recipe or target asks for what an ONNX graph cannot get."""

    code, title = "not_for_onnx", "An ONNX model cannot get that"


class NothingChanged(InvalidRecipe):
    """A pass found nothing that it could change."""

    code, title = "nothing_changed", "A pass changed nothing"
