"""Artefacts side by side: in turns, on the same examples, their outputs compared."""

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from keras_lottery.export import comparing

# Turns, spreads, differences ------------------------------------------------------------


def test_functions_take_turns_and_another_one_goes_first_each_time():
    calls = []

    def note(name):
        calls.append(name)
        return float(len(calls))

    functions = {name: lambda name=name: note(name) for name in "abc"}
    found = comparing.in_turns(functions, repeats=2, untimed=1)
    assert "".join(calls) == "abc" + "bca" + "cab"
    assert found == {"a": [6.0, 8.0], "b": [4.0, 9.0], "c": [5.0, 7.0]}


@given(st.integers(1, 6), st.integers(1, 4))
def test_in_as_many_turns_as_functions_each_has_every_place_once(n, rounds):
    calls = []
    functions = {i: lambda i=i: calls.append(i) or 0.0 for i in range(n)}
    comparing.in_turns(functions, repeats=n * rounds)
    turns = np.reshape(calls, (rounds, n, n))
    assert (np.sort(turns, axis=1) == np.arange(n)[:, None]).all()
    assert (np.sort(turns, axis=2) == np.arange(n)).all()


def test_news_break_a_silence_of_ten_seconds_only(monkeypatch):
    clock, file = [0.0], io.StringIO()
    monkeypatch.setattr(comparing.time, "monotonic", lambda: clock[0])
    tell = comparing.News(Console(file=file))
    for clock[0], text in [(9, "early"), (11, "late"), (20, "early"), (22, "later")]:
        tell(text)
    assert file.getvalue().split() == ["late", "later"]


DIFFERENCES = {
    "of parts of the largest right value": ([[1.0, -5.0]], [[1.0, -4.0]], 0.25),
    "the worst output counts": ([[1.0], [100.0]], [[2.0], [99.0]], 0.5),
    "absolute where all is zero": ([[0.5, 0.0]], [[0.0, 0.0]], 0.5),
    "none": ([[3.0]], [[3.0]], 0.0),
    "nothing to compare": ([[]], [[]], 0.0),
    "a NaN is far from a number": ([[math.nan, 1.0]], [[1.0, 1.0]], math.inf),
    "a number is far from a NaN": ([[1.0, 1.0]], [[math.nan, 1.0]], math.inf),
    "an Inf is far from a number": ([[math.inf]], [[1.0]], math.inf),
    "an Inf is far from the other Inf": ([[math.inf]], [[-math.inf]], math.inf),
    "the same NaN and Inf are no difference": ([[math.nan, math.inf, 3.0]],
                                               [[math.nan, math.inf, 4.0]], 0.25),
}  # fmt: skip


@pytest.mark.parametrize(("outputs", "right", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_is_what_it_is_by_hand(outputs, right, expected):
    arrays = ([np.array(a, np.float32) for a in part] for part in (outputs, right))
    assert comparing.difference(*arrays) == expected


def test_outputs_of_another_shape_are_never_broadcast():
    with pytest.raises(ValueError, match=r"\[\(2, 3\)\].*Received: \[\(2, 1\)\]"):
        comparing.difference([np.zeros((2, 1))], [np.zeros((2, 3))])
    with pytest.raises(ValueError, match=r"\[\(2,\)\].*Received: \[\(2,\), \(2,\)\]"):
        comparing.difference([np.zeros(2)] * 2, [np.zeros(2)])
