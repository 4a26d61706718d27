from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.passes.prune.labels import MEETS_FIXED, STAYS, Labels

PAIRS = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=20)


@given(PAIRS)
def test_joined_labels_have_one_root_and_others_do_not(pairs):
    labels = Labels()
    fresh = labels.fresh(12)
    reference = [{i} for i in range(12)]
    for a, b in pairs:
        labels.join(fresh[[a]], fresh[[b]])
        union = reference[a] | reference[b]
        for member in union:
            reference[member] = union
    roots = labels.root(fresh)
    for i in range(12):
        assert {j for j in range(12) if roots[j] == roots[i]} == reference[i]


@given(PAIRS, st.integers(0, 11))
def test_a_whole_set_stays_when_one_of_it_has_to_whenever_that_was_said(pairs, kept):
    early, late = Labels(), Labels()
    for labels in (early, late):
        fresh = labels.fresh(12)
        if labels is early:
            labels.keep(fresh[[kept]], "because")
        for a, b in pairs:
            labels.join(fresh[[a]], fresh[[b]])
        if labels is late:
            labels.keep(fresh[[kept]], "because")
    assert [early.why(i + 1) for i in range(12)] == [late.why(i + 1) for i in range(12)]


def test_what_meets_a_fixed_number_stays():
    labels = Labels()
    fresh = labels.fresh(2)
    labels.join(fresh, np.array([STAYS, fresh[1]]))
    assert labels.why(int(fresh[0])) == MEETS_FIXED
    assert labels.why(int(fresh[1])) is None
