"""Which layer of the student follows which layer of the teacher."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from planish.contract.errors import InvalidRecipe
from planish.contract.problem import FieldError
from worker.engine.distill.features import Feature, Pair

POINTS = 3
"""How many places are compared in a network whose features keep one size all the way."""

MOST = 2 / 3
"""Share of the features that must have one size for a network to count as one of one size."""

Features = Mapping[str, Feature]
Stages = dict[tuple[int, ...], list[Feature]]


def given_pairs(
    layer_map: Mapping[str, str], student: Features, teacher: Features, pointer: str
) -> tuple[Pair, ...]:
    """Return the pairs that a recipe names.

    Args:
        layer_map: student's layer → teacher's layer.
        student: features by name.
        teacher: likewise.
        pointer: JSON pointer of the map in the spec, for errors.

    Raises:
        InvalidRecipe: no such layer (near names are given), or features of different kinds.
    """
    pairs = []
    for ours, theirs in layer_map.items():
        place = f"{pointer}/{ours}"
        pair = Pair(
            _find(ours, student, "student", place), _find(theirs, teacher, "teacher", place)
        )
        if len(pair.student.sizes) != len(pair.teacher.sizes):
            raise _refused(
                f"{ours} gives {pair.student}, the teacher's {theirs} {pair.teacher}; images go "
                "with images, sequences with sequences, vectors with vectors",
                place,
            )
        pairs.append(pair)
    return tuple(pairs)


def found_pairs(student: Features, teacher: Features, pointer: str) -> tuple[Pair, ...]:
    """Return pairs found by place: the last layer of every size that both networks have.

    That is the end of each stage of a convolutional network. Where nearly all features have one
    size, as in a transformer, the ends of three blocks are taken at equal distances: those of the
    same name in the teacher if both end in a layer of one name, else those at the same share of the
    depth. Networks without a common size are paired stage by stage from the end, and pooled.

    Raises:
        InvalidRecipe: there is nothing to pair.
    """
    ours, theirs = _stages(student), _stages(teacher)
    common = [sizes for sizes in ours if sizes in theirs]
    one = next((s for s in common if _mostly(ours, s) and _mostly(theirs, s)), None)
    if one is not None:
        return _at_equal_distances(_block_ends(ours[one]), _block_ends(theirs[one]))
    if common:
        return tuple(Pair(ours[sizes][-1], theirs[sizes][-1]) for sizes in common)
    last = [
        Pair(a[-1], b[-1])
        for a, b in zip(reversed(ours.values()), reversed(theirs.values()), strict=False)
        if len(a[-1].sizes) == len(b[-1].sizes)
    ]
    if not last:
        raise _refused(
            "no layers of student and teacher give features of one kind; name them in layer_map",
            pointer,
        )
    return tuple(reversed(last))


def _stages(features: Features) -> Stages:
    """Return features by size, in order; single pixels only where there is nothing else."""
    stages: Stages = defaultdict(list)
    for feature in features.values():
        stages[feature.sizes].append(feature)
    large = {sizes: found for sizes, found in stages.items() if any(size > 1 for size in sizes)}
    return large or dict(stages)


def _mostly(stages: Stages, sizes: tuple[int, ...]) -> bool:
    """Tell whether nearly all features of a network have one size."""
    return len(stages[sizes]) > MOST * sum(map(len, stages.values()))


def _block_ends(features: Sequence[Feature]) -> Sequence[Feature]:
    """Return what stands last in each block: of the names that repeat, the one that comes last.

    ``layers.0.down_proj``, ``layers.1.down_proj`` … of a transformer; all features where no name
    repeats.
    """
    leaves = [feature.name.rpartition(".")[2] for feature in features]
    repeated = [leaf for leaf in leaves if leaves.count(leaf) > 1]
    if not repeated:
        return features
    return [f for f, leaf in zip(features, leaves, strict=True) if leaf == repeated[-1]]


def _at_equal_distances(ours: Sequence[Feature], theirs: Sequence[Feature]) -> tuple[Pair, ...]:
    named = {feature.name: feature for feature in theirs}
    same = ours[-1].name == theirs[-1].name
    points = min(POINTS, len(ours))
    chosen = [ours[-(-len(ours) * (i + 1) // points) - 1] for i in range(points)]
    partners = [
        named[feature.name]
        if same and feature.name in named
        else theirs[-(-len(theirs) * (i + 1) // points) - 1]
        for i, feature in enumerate(chosen)
    ]
    return tuple(map(Pair, chosen, partners))


def _find(name: str, features: Features, side: str, pointer: str) -> Feature:
    if name in features:
        return features[name]
    near = difflib.get_close_matches(name, features, 3, cutoff=0.3) or list(features)[:3]
    raise _refused(
        f"the {side} has no layer {name!r} with features; near names: {', '.join(near) or 'none'}",
        pointer,
    )


def _refused(detail: str, pointer: str) -> InvalidRecipe:
    return InvalidRecipe(detail, (FieldError(pointer=pointer, detail=detail),))
