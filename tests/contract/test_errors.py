"""The error tree: codes are unique, stable and survive every border."""

from __future__ import annotations

import pickle
import re

import pytest

from planish.contract import errors
from planish.contract.errors import BY_CODE, PlanishError, error_from
from planish.contract.job import TERMINAL, TRANSITIONS, JobStatus
from planish.contract.problem import FieldError, Problem


def classes() -> list[type[PlanishError]]:
    found = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, PlanishError)
    ]
    return sorted(found, key=lambda c: c.__name__)


def test_each_class_has_a_code_of_its_own() -> None:
    assert len(BY_CODE) == len(classes())
    assert all(re.fullmatch(r"[a-z][a-z_]+", code) for code in BY_CODE)


@pytest.mark.parametrize("cls", classes())
def test_class_survives_the_round_trip_over_the_wire(cls: type[PlanishError]) -> None:
    sent = cls("sparsity is 1.2", (FieldError(pointer="/recipe/0/sparsity", detail="too big"),))
    read = Problem.model_validate_json(sent.problem("req-1").model_dump_json())
    back = error_from(read.code, read.detail, read.errors)
    assert type(back) is cls
    assert (back.detail, back.errors) == (sent.detail, sent.errors)


@pytest.mark.parametrize("cls", classes())
def test_class_survives_pickling_between_our_processes(cls: type[PlanishError]) -> None:
    back = pickle.loads(pickle.dumps(cls("why")))
    assert (type(back), back.detail) == (cls, "why")


def test_drawn_tree_names_every_class_once() -> None:
    drawn = re.findall(r"[├└]── (\w+)|^    (PlanishError)$", errors.__doc__ or "", re.MULTILINE)
    names = {a or b for a, b in drawn} - {"client"}
    assert names == {cls.__name__ for cls in classes()}


def test_terminal_states_are_exactly_those_without_a_way_on() -> None:
    assert {s for s, onward in TRANSITIONS.items() if not onward} == TERMINAL
    assert set(TRANSITIONS) == set(JobStatus)


def test_every_state_can_be_reached_from_queued() -> None:
    seen, todo = set(), [JobStatus.QUEUED]
    while todo:
        state = todo.pop()
        if state not in seen:
            seen.add(state)
            todo += TRANSITIONS[state]
    assert seen == set(JobStatus)
