"""What a spec may hold, and how its faults are told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planish.contract.checks import check_recipe, check_resources
from planish.contract.errors import (
    BadRequest,
    InvalidRecipe,
    InvalidSpec,
    PlanishError,
    TooLarge,
    UnsatisfiableResources,
)
from planish.contract.spec import Spec
from planish.contract.validation import MAX_SPEC_BYTES, parse_spec

RECIPE = [
    {"op": "prune", "structure": "channel", "method": "magnitude", "sparsity": 0.5},
    {"op": "distill", "method": "kd", "temperature": 4.0, "alpha": 0.9, "train": {"epochs": 5}},
    {"op": "quantize", "mode": "static", "dtype": "int8", "calibration": "minmax"},
]


def body(**fields: object) -> bytes:
    return json.dumps({"recipe": RECIPE} | fields).encode()


def faults(raw: bytes) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(raw)
    return {e.pointer: e.detail for e in caught.value.errors}


def test_documented_spec_is_taken_and_survives_json() -> None:
    spec = parse_spec(
        body(
            name="resnet20-int8",
            labels={"team": "edge"},
            model={"format": "auto", "architecture": None, "inputs": None},
            data={
                "task": "classification",
                "preprocess": {
                    "scale": 1 / 255,
                    "mean": [0.485, 0.456, 0.406],
                    "std": [0.2, 0.2, 0.2],
                },
            },
            goal=None,
            target={"device": "cpu", "runtime": "onnxruntime", "batch_size": 1, "threads": 2},
            outputs=["onnx", "pt2"],
            resources={"gpus": 0, "run_seconds": 3600, "start_by_seconds": 86400},
            webhook=None,
        )
    )
    assert Spec.model_validate_json(spec.model_dump_json()) == spec


def test_unknown_key_names_the_nearest() -> None:
    assert "did you mean 'recipe'" in faults(b'{"recpie": []}')["/recpie"]
    wrong = [{"op": "prune", "sparsty": 0.5}]
    assert "did you mean 'sparsity'" in faults(body(recipe=wrong))["/recipe/0/sparsty"]


def test_unknown_op_names_the_known_ones() -> None:
    assert (
        "known ops: prune, low_rank, distill"
        in faults(body(recipe=[{"op": "shrink"}]))["/recipe/0"]
    )


@pytest.mark.parametrize("sparsity", [1.5, 1.0, 0.0, -0.1, "half"])
def test_sparsity_outside_its_range_is_refused(sparsity: object) -> None:
    found = faults(body(recipe=[{"op": "prune", "sparsity": sparsity}]))
    assert list(found) == ["/recipe/0/sparsity"]


def test_all_faults_come_in_one_answer() -> None:
    wrong = [{"op": "prune", "sparsity": 7}, {"op": "quantize", "mode": "magic"}]
    assert set(faults(body(recipe=wrong, seed=-1))) == {
        "/recipe/0/sparsity",
        "/recipe/1/mode",
        "/seed",
    }


def test_recipe_and_goal_exclude_each_other() -> None:
    assert "not both" in faults(body(goal={"minimize": "latency"}))[""]
    assert "recipe is needed" in faults(b"{}")[""]


def test_spec_above_its_limit_is_too_large() -> None:
    with pytest.raises(TooLarge):
        parse_spec(b" " * (MAX_SPEC_BYTES + 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"seed": NaN}',
        b'{"seed": 1, "seed": 2}',
        b"[" * 100_000,
        b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
    ids=["empty", "cut", "not-utf8", "nan", "key-twice", "deep-list", "deep-object"],
)
def test_malformed_json_is_a_bad_request(raw: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_spec(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["op", "recipe", "train", "x"]), inner)
    ),
    max_leaves=12,
)


@given(
    JSON,
    st.sampled_from(["recipe", "model", "data", "target", "labels", "files", "outputs", "goal"]),
)
def test_no_json_value_escapes_the_error_tree(value: object, key: str) -> None:
    try:
        parse_spec(json.dumps({"recipe": RECIPE} | {key: value}).encode())
    except PlanishError as error:
        assert error.status in (400, 413, 422)


def spec_of(*recipe: dict[str, object], **fields: object) -> Spec:
    return parse_spec(body(recipe=list(recipe), **fields))


def test_pass_after_quantize_is_refused_with_the_order_that_works() -> None:
    spec = spec_of({"op": "quantize"}, {"op": "prune"}, {"op": "simplify"})
    with pytest.raises(InvalidRecipe, match="prune → simplify → quantize"):
        check_recipe(spec, has_data=True, has_targets=True)


@pytest.mark.parametrize(
    ("step", "has_data", "has_targets"),
    [
        ({"op": "retrain"}, False, False),
        ({"op": "retrain"}, True, False),
        ({"op": "distill"}, False, False),
        ({"op": "distill", "alpha": 0.9}, True, False),
    ],
)
def test_missing_data_or_labels_are_named(
    step: dict[str, object], has_data: bool, has_targets: bool
) -> None:
    with pytest.raises(InvalidRecipe, match="data file" if not has_data else "targets"):
        check_recipe(spec_of(step), has_data=has_data, has_targets=has_targets)


def test_distill_from_the_teacher_alone_needs_no_labels() -> None:
    check_recipe(spec_of({"op": "distill", "alpha": 1.0}), has_data=True, has_targets=False)


def test_dynamic_int8_as_pt2_is_refused() -> None:
    spec = spec_of({"op": "quantize", "mode": "dynamic"}, outputs=["onnx", "pt2"])
    with pytest.raises(InvalidRecipe, match="onnx"):
        check_recipe(spec, has_data=True, has_targets=True)


def test_nodes_without_a_rendezvous_are_unsatisfiable() -> None:
    spec = spec_of({"op": "retrain", "strategy": "ddp"}, resources={"nodes": 2})
    with pytest.raises(UnsatisfiableResources, match="PLANISH_RENDEZVOUS"):
        check_resources(spec, fleet_gpus=0, rendezvous=False)
    check_resources(spec, fleet_gpus=0, rendezvous=True)


def test_nodes_that_would_have_nothing_to_do_are_refused() -> None:
    spec = spec_of({"op": "retrain"}, resources={"nodes": 2})
    with pytest.raises(InvalidRecipe, match='strategy "ddp"'):
        check_recipe(spec, has_data=True, has_targets=True)


def test_more_gpus_than_the_fleet_has_is_unsatisfiable() -> None:
    spec = spec_of({"op": "retrain", "strategy": "ddp"}, resources={"gpus": 4})
    with pytest.raises(UnsatisfiableResources, match="fleet has 2"):
        check_resources(spec, fleet_gpus=2, rendezvous=False)
    check_resources(spec, fleet_gpus=4, rendezvous=False)


def test_gpus_that_would_have_nothing_to_do_are_refused() -> None:
    spec = spec_of({"op": "retrain"}, resources={"gpus": 2})
    with pytest.raises(InvalidRecipe, match='strategy "ddp"'):
        check_resources(spec, fleet_gpus=2, rendezvous=False)
    check_resources(
        spec_of({"op": "retrain"}, resources={"gpus": 1}), fleet_gpus=2, rendezvous=False
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"target": {"device": "cuda"}, "resources": {"gpus": 1}}, 'set runtime to "torch"'),
        ({"target": {"device": "cuda", "runtime": "torch"}}, "set resources.gpus to 1"),
    ],
)
def test_a_target_on_gpus_needs_torch_and_a_gpu(fields: dict[str, object], said: str) -> None:
    assert any(said in detail for detail in faults(body(**fields)).values())


@pytest.mark.parametrize(
    "fields", [{"target": {"runtime": "openvino"}}, {"outputs": ["onnx", "openvino"]}]
)
def test_dynamic_int8_is_refused_where_only_its_float_graph_would_run(
    fields: dict[str, object],
) -> None:
    spec = parse_spec(body(recipe=[{"op": "quantize", "mode": "dynamic"}], **fields))
    with pytest.raises(InvalidRecipe, match="exists as onnx only"):
        check_recipe(spec, has_data=True, has_targets=True)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"structure": "layer", "method": "wanda"}, "does not rank structure 'layer'"),
        ({"structure": "channel", "sparsity": 0.5, "target_macs": 0.5}, "exactly one of"),
        ({"structure": "n:m", "pattern": "4:2"}, "n must be below m"),
        ({"structure": "n:m", "sparsity": 0.9}, "says how much goes"),
        ({"structure": "unstructured", "sparsity": 0.5, "pattern": "2:4"}, "is for structure"),
        ({"structure": "unstructured", "threshold_ratio": 0.1, "method": "wanda"}, "magnitude"),
        ({"structure": "channel", "schedule": "cubic"}, "one_shot"),
    ],
)
def test_prune_parameters_that_do_not_fit_together_are_refused(
    step: dict[str, object], why: str
) -> None:
    (detail,) = faults(body(recipe=[{"op": "prune", **step}])).values()
    assert why in detail


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"mode": "dynamic", "granularity": "group"}, "knows no granularity"),
        ({"mode": "static", "dtype": "int4"}, "knows no dtype"),
        ({"mode": "weight_only", "algorithm": "adaround"}, "knows no algorithm"),
        ({"mode": "qat", "min_sqnr": 20.0}, "min_sqnr"),
    ],
)
def test_quantize_parameters_that_do_not_fit_together_are_refused(
    step: dict[str, object], why: str
) -> None:
    (detail,) = faults(body(recipe=[{"op": "quantize", **step}])).values()
    assert why in detail


def test_defaults_follow_the_structure_and_survive_json() -> None:
    steps = [
        {"op": "prune", "structure": "layer", "blocks": 2},
        {"op": "prune", "structure": "n:m"},
        {"op": "prune", "structure": "unstructured", "threshold_ratio": 0.2},
        {"op": "quantize", "mode": "weight_only", "dtype": "int4"},
    ]
    spec = parse_spec(body(recipe=steps))
    assert parse_spec(spec.model_dump_json().encode()) == spec
    layer, pattern, threshold, int4 = spec.recipe
    assert (layer.method, layer.sparsity) == ("kl", None)
    assert (pattern.pattern, pattern.kept_of, pattern.pattern_share) == ("2:4", (2, 4), 0.5)
    assert threshold.sparsity is None
    assert int4.granularity == "group"
