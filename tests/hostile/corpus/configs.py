"""Hugging Face folders whose config.json and companions ask loaders to run code or to overflow."""

from __future__ import annotations

import json

from tests.hostile.canary import Canary
from tests.hostile.corpus.case import ARCHITECTURE, HARMLESS, Upload, hostile
from tests.hostile.fuzz import seeds
from tests.hostile.fuzz.seeds import safetensors

BERT: dict[str, object] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 32,
}
WEIGHTS = safetensors(
    json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode(), bytes(4)
)
SIMPLIFY = {"recipe": [{"op": "simplify"}]}


def folder(config: bytes, *more: tuple[str, bytes]) -> Upload:
    """Return weights with a config.json and other files beside them."""
    files = [("model.safetensors", WEIGHTS), ("config.json", config), *more]
    return Upload(tuple(("model", name, raw) for name, raw in files), SIMPLIFY)


def bert(**changes: object) -> Upload:
    """Return a folder of BERT with other keys in its config."""
    return folder(json.dumps({**BERT, **changes}).encode())


@hostile("unsafe_model")
def config_that_maps_to_code(canary: Canary) -> Upload:
    """auto_map names a Python file to run."""
    return bert(auto_map={"AutoModel": "evil.EvilModel"})


@hostile("unsafe_model")
def config_that_trusts_itself(canary: Canary) -> Upload:
    """trust_remote_code from within (CVE-2026-5241)."""
    return bert(trust_remote_code=True)


@hostile("unsafe_model")
def config_that_names_a_kernel(canary: Canary) -> Upload:
    """_attn_implementation_internal fetches and runs code (CVE-2026-4372)."""
    return bert(_attn_implementation_internal="evil/kernel")


@hostile("unknown_architecture")
def config_of_a_foreign_type(canary: Canary) -> Upload:
    """A model type that is a module's name."""
    return bert(model_type="os.system")


@hostile("unknown_architecture", "invalid_spec")
def config_of_a_billion_layers(canary: Canary) -> Upload:
    """A network that no memory holds."""
    return bert(num_hidden_layers=10**9)


@hostile("unknown_architecture", "invalid_spec")
def config_of_negative_heads(canary: Canary) -> Upload:
    """A division by less than nothing."""
    return bert(num_attention_heads=-1)


@hostile("invalid_model", "unknown_architecture")
def config_nested_too_deep(canary: Canary) -> Upload:
    """A hundred thousand brackets."""
    return folder(b'{"model_type":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@hostile("invalid_model", "unknown_architecture")
def config_with_a_key_twice(canary: Canary) -> Upload:
    """The first or the last: readers differ."""
    return folder(json.dumps(BERT).encode().replace(b'{"', b'{"model_type":"gpt2","', 1))


@hostile("invalid_model", "unknown_architecture")
def config_that_is_no_text(canary: Canary) -> Upload:
    """Bytes in place of JSON."""
    return folder(b"\xff\xfe\x00")


@hostile("invalid_model")
def python_beside_the_weights(canary: Canary) -> Upload:
    """A file that some loaders import."""
    return folder(json.dumps(BERT).encode(), ("modeling_evil.py", canary.code.encode()))


@hostile("invalid_model")
def tokenizer_nested_too_deep(canary: Canary) -> Upload:
    """A companion that nobody reads must not overflow whoever does."""
    return folder(json.dumps(BERT).encode(), ("tokenizer.json", b"[" * 100_000 + b"]" * 100_000))


@hostile("state_dict_mismatch")
def code_in_the_licence(canary: Canary) -> Upload:
    """Companions are copied and never run; the weights are of another network."""
    files = [("model.safetensors", WEIGHTS), ("LICENSE", canary.shell.encode())]
    spec = {**SIMPLIFY, "model": ARCHITECTURE}
    return Upload(tuple(("model", name, raw) for name, raw in files), spec)


@hostile(HARMLESS)
def code_beside_a_program(canary: Canary) -> Upload:
    """The same beside a model that works."""
    files = [("model.pt2", seeds.pt2()), ("README.md", canary.code.encode())]
    return Upload(tuple(("model", name, raw) for name, raw in files), SIMPLIFY)
