"""Which config.json becomes which network, and which is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from planish.contract.architectures import PUBLISHED, find_architecture
from planish.contract.architectures.config_json import read_config
from planish.contract.architectures.config_keys import DANGEROUS, FIXED, LEFT_OUT
from planish.contract.errors import (
    InvalidInput,
    UnknownArchitecture,
    UnsafeModel,
)
from planish.contract.spec import Architecture, ModelSpec
from planish.gate.parts import Part, Parts, model_files
from planish.gate.published import MAX_CONFIG, with_architecture
from tests.published import BERT, DISTILBERT, GPT2, LLAMA32, QWEN25, T5, TINYLLAMA, VIT

Config = dict[str, JsonValue]


def found(document: Config, wanted: Architecture | None = None) -> Config:
    config = find_architecture(read_config(document, wanted))
    return config.model_dump() | {"is": config.architecture, "class": config.class_name}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (BERT, {"is": "bert", "class": "BertForMaskedLM", "hidden_size": 768}),
        (DISTILBERT, {"class": "DistilBertForSequenceClassification", "num_labels": 2, "dim": 768}),
        (GPT2, {"class": "GPT2LMHeadModel", "n_embd": 768, "n_inner": None}),
        (TINYLLAMA, {"class": "LlamaForCausalLM", "num_key_value_heads": 4}),
        (QWEN25, {"class": "Qwen2ForCausalLM", "tie_word_embeddings": True}),
        (VIT, {"class": "ViTForImageClassification", "num_labels": 3, "patch_size": 16}),
        (T5, {"is": "t5", "class": "T5EncoderModel", "feed_forward_proj": "relu"}),
    ],
)
def test_published_files_are_read_as_they_are(document: Config, says: Config) -> None:
    config = found(document)
    assert {key: config[key] for key in says} == says


def test_rotary_positions_are_read_however_they_are_spelt() -> None:
    rope = found(LLAMA32)["rope_parameters"]
    assert isinstance(rope, dict)
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", 32.0, 500_000.0)
    old = {**TINYLLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}
    rope = found(old)["rope_parameters"]
    assert isinstance(rope, dict)
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("linear", 2.0, 10_000.0)


@pytest.mark.parametrize(
    "key",
    [
        *DANGEROUS,
        "_attn_implementation",
        "_attn_implementation_internal",  # CVE-2026-4372
        "_attn_implementation_autoset",
        "attn_implementation",
        "_experts_implementation",
    ],
)
@pytest.mark.parametrize("document", [BERT, TINYLLAMA, VIT], ids=["bert", "llama", "vit"])
def test_keys_that_make_loaders_run_code_are_refused(document: Config, key: str) -> None:
    for value in ("attacker/kernels", True, None, {"AutoModel": "evil--modeling.Evil"}):
        with pytest.raises(UnsafeModel, match=key):
            read_config({**document, key: value})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hiden_size": 3}, "hiden_size.*did you mean 'hidden_size'"),
        ({"head": "base"}, "head"),
        ({"model_type": "lightglue", "trust_remote_code_": True}, "lightglue"),  # CVE-2026-5241
        ({"model_type": "brt"}, "did you mean 'bert'"),
        ({"model_type": None}, "model_type"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"architectures": ["BertForQuestionAnswering"]}, "BertForQuestionAnswering"),
        ({"architectures": ["BertModel", "BertForMaskedLM"]}, "architectures"),
        ({"architectures": "BertModel"}, "architectures"),
        ({"architectures": ["os.system"]}, "os.system"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"torch_dtype": "os.system"}, "torch_dtype"),
        ({"torch_dtype": {"__class__": "x"}}, "torch_dtype"),
        ({"dtype": "int8"}, "dtype"),
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"chunk_size_feed_forward": 4}, "chunk_size_feed_forward"),
        ({"hidden_act": "__import__('os').system('x')"}, "hidden_act"),
        ({"hidden_act": {"f": 1}}, "hidden_act"),
        ({"hidden_size": 10**12}, "hidden_size"),
        ({"hidden_size": -768}, "hidden_size"),
        ({"hidden_size": "768"}, "hidden_size"),
        ({"hidden_size": 768.5}, "hidden_size"),
        ({"hidden_size": True}, "hidden_size"),
        ({"hidden_size": [768]}, "hidden_size"),
        ({"hidden_size": 770}, "no multiple"),
        ({"num_hidden_layers": 100_000}, "num_hidden_layers"),
        ({"vocab_size": 10**9}, "vocab_size"),
        ({"max_position_embeddings": 2**40}, "max_position_embeddings"),
        ({"layer_norm_eps": 1e9}, "layer_norm_eps"),
        ({"pad_token_id": 40_000}, "pad_token_id"),
        ({"__class__": "x"}, "__class__"),
        ({"sub_configs": {}}, "sub_configs"),
        ({"vision_config": {"model_type": "clip"}}, "vision_config"),
    ],
)
def test_what_is_not_built_is_refused_by_name(change: Config, says: str) -> None:
    with pytest.raises(UnknownArchitecture, match=says):
        find_architecture(read_config({**BERT, **change}))


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0},
        {"rope_type": "linear"},
        {"rope_type": "llama3", "factor": 8.0},
        {"rope_type": "linear", "type": "llama3", "factor": 2.0},
        {"rope_type": "linear", "factor": 0.0},
        {"rope_type": "default", "code": "x"},
        "linear",
        7,
    ],
)
def test_rotary_positions_that_are_not_built_are_refused(rope: JsonValue) -> None:
    with pytest.raises(UnknownArchitecture):
        find_architecture(read_config({**TINYLLAMA, "rope_scaling": rope}))


@pytest.mark.parametrize("change", [{"use_sliding_window": True}, {"use_mrope": True},
                                    {"layer_types": ["sliding_attention"]}])  # fmt: skip
def test_attention_that_is_not_built_is_refused(change: Config) -> None:
    with pytest.raises(UnknownArchitecture):
        read_config({**QWEN25, **change})


def test_a_head_is_laid_over_the_file() -> None:
    asked = Architecture(library="transformers", name="bert", config={"head": "embedding"})
    assert found(BERT, asked)["class"] == "BertModel"
    named = Architecture(library="transformers", name="BertForTokenClassification")
    assert found(BERT, named)["class"] == "BertForTokenClassification"
    base = {**BERT, "architectures": ["BertModel"]}
    minilm = found(base, Architecture(library="transformers", name="minilm"))
    assert (minilm["head"], minilm["hidden_size"], minilm["is"]) == ("embedding", 768, "minilm")
    with pytest.raises(UnknownArchitecture, match="model_type"):
        found(GPT2, Architecture(library="transformers", name="bert"))


def test_missing_keys_mean_what_the_published_type_means() -> None:
    bare: Config = {"model_type": "bert"}
    assert found(bare)["hidden_size"] == 768
    asked = Architecture(library="transformers", name="minilm")
    assert found(bare, asked)["hidden_size"] == 768
    assert found({"model_type": "llama"})["hidden_size"] == 4096


def test_lists_of_keys_do_not_overlap() -> None:
    assert not set(FIXED) & LEFT_OUT
    assert not set(DANGEROUS) & (LEFT_OUT | set(FIXED))
    for config in PUBLISHED.values():
        assert not set(config.model_fields) & set(FIXED)


def folder(path: Path, config: bytes) -> Parts:
    (path / "config.json").write_bytes(config)
    (path / "model.safetensors").write_bytes(b"x")
    names = ("config.json", "model.safetensors")
    return Parts(tuple(Part(name, path / name) for name in names))


def test_the_file_counts_only_where_the_spec_says_nothing_else(tmp_path: Path) -> None:
    files = model_files(folder(tmp_path, json.dumps(BERT).encode()))
    filled = with_architecture(ModelSpec(), files).architecture
    assert filled is not None
    assert (filled.library, filled.name) == ("transformers", "bert")
    for config in ({}, {"hidden_size": 32, "num_attention_heads": 2}):
        own = Architecture(library="transformers", name="bert", config=config)
        assert with_architecture(ModelSpec(architecture=own), files).architecture == own
    planish = Architecture(library="planish", name="resnet8")
    assert with_architecture(ModelSpec(architecture=planish), files).architecture == planish


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b'{"model_type": "bert", "model_type": "gpt2"}',
        b'{"model_type": "bert", "layer_norm_eps": NaN}',
        b'{"model_type": "bert", "hidden_size": 1e400}',
        b'{"model_type": "bert", "x": ' + b"[" * 63 + b"]" * 63 + b"}",
        b"\xff\xfe{}",
        b'{"a": "' + b"x" * MAX_CONFIG + b'"}',
    ],
    ids=range(10),
)
def test_files_that_are_no_config_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InvalidInput):
        checked(folder(tmp_path, content))


def checked(parts: Parts) -> None:
    spec = with_architecture(ModelSpec(), model_files(parts))
    assert spec.architecture is not None
    find_architecture(spec.architecture)


def test_a_config_of_something_else_is_left_alone(tmp_path: Path) -> None:
    files = model_files(folder(tmp_path, b'{"architecture": "resnet50"}'))
    assert with_architecture(ModelSpec(), files).architecture is None


KEYS = sorted({*FIXED, *LEFT_OUT, *DANGEROUS, *BERT, *TINYLLAMA, *VIT, *T5, *GPT2, "id2label"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    document=st.sampled_from([BERT, DISTILBERT, GPT2, LLAMA32, QWEN25, VIT, T5]),
    changes=st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=20), VALUES, max_size=4),
)
def test_any_document_is_a_network_or_a_refusal(document: Config, changes: Config) -> None:
    try:
        config = find_architecture(read_config({**document, **changes}))
    except InvalidInput as refused:
        assert refused.detail
    else:
        assert config.library == "transformers"
        assert not any(key in DANGEROUS for key in changes)
