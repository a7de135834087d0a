"""Schedules: how many weights each round leaves alive."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import schedules

FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)


@pytest.mark.parametrize(
    ("fraction", "alive", "survivors"),
    [
        (0.2, 100, 80),
        (0.2, 266_200, 212_960),
        (0.1, 1000, 900),
        (0.004, 100, 100),  # less than half a weight: nothing goes
        (0.006, 100, 99),
        (0.2, 2, 2),
        (0.2, 3, 2),
        (0.5, 1, 1),  # round(0.5) is 0
        (0.9, 1, 0),
        (0.2, 0, 0),
    ],
)
def test_a_fraction_removes_round_fraction_times_alive(fraction, alive, survivors):
    assert schedules.keep_fraction(fraction)(alive, 10**6) == survivors


@pytest.mark.parametrize(
    ("density", "alive", "total", "survivors"),
    [(0.2, 1000, 1000, 200), (0.2, 100, 1000, 100), (1.0, 7, 9, 7), (0.0, 5, 9, 0)],
)
def test_a_density_is_of_all_and_never_revives(density, alive, total, survivors):
    assert schedules.keep_density(density)(alive, total) == survivors


@given(FRACTIONS, st.integers(0, 10**8))
def test_a_fraction_is_exact_and_in_range(fraction, alive):
    kept = schedules.keep_fraction(fraction)(alive, alive)
    assert type(kept) is int
    assert 0 <= kept <= alive
    assert abs((alive - kept) - fraction * alive) <= 0.5


@pytest.mark.parametrize("fraction", [0, 0.0, 1, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_fraction_out_of_range_is_told(fraction):
    with pytest.raises(ValueError, match=r"prune_fraction.*Received"):
        schedules.resolve(fraction)


@pytest.mark.parametrize("nonsense", [True, False, None, "0.2", {}, object(), iter([1.0])])
def test_what_is_no_schedule_is_told(nonsense):
    with pytest.raises(ValueError, match=r"schedule.*Received"):
        schedules.resolve(nonsense)


@pytest.mark.parametrize("number", [0.2, np.float32(0.2), np.float64(0.2)])
def test_every_kind_of_number_is_a_fraction(number):
    assert schedules.resolve(number).keep(1, 0)(100, 100) == 80


@pytest.mark.parametrize(
    "densities", [[1.0, 0.5, 0.25], (1, 0.5, 0.25), np.array([1.0, 0.5, 0.25])]
)
def test_every_kind_of_sequence_is_densities_by_round(densities):
    schedule = schedules.resolve(densities)
    assert [schedule.keep(r, 0)(100, 100) for r in range(3)] == [100, 50, 25]
    assert schedule.check(None) == 3
    assert schedule.check(3) == 3


@pytest.mark.parametrize(
    "densities",
    [
        [],
        [0.5],
        [0.5, 0.25],
        [1.0, 0.0],
        [1.0, -0.5],
        [1.0, 1.5],
        [1.0, float("nan")],
        [1.0, 0.2, 0.5],
    ],
)
def test_densities_that_grow_or_leave_the_range_are_told(densities):
    with pytest.raises(ValueError, match="schedule"):
        schedules.resolve(densities)


def test_a_growing_sequence_names_the_round():
    with pytest.raises(ValueError, match=r"0\.5 in round 2 after 0\.2 in round 1"):
        schedules.resolve([1.0, 0.2, 0.5])


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_a_sequence_must_have_a_density_for_each_round(rounds):
    with pytest.raises(ValueError, match=f"3 densities.*{rounds} rounds"):
        schedules.resolve([1.0, 0.5, 0.25]).check(rounds)


def test_a_callable_gives_the_density_of_a_round():
    schedule = schedules.resolve(lambda r: 0.5**r)
    assert [schedule.keep(r, 99)(1000, 1000) for r in range(4)] == [1000, 500, 250, 125]
    assert schedule.check(5) == 5


@pytest.mark.parametrize("curve", [lambda r: 0.5, lambda r: 1 - r, lambda r: [1, 0.2, 0.4][r]])
def test_a_bad_callable_is_told_before_training(curve):
    with pytest.raises(ValueError, match="schedule"):
        schedules.resolve(curve).check(3)


class Steps:
    """A pruning schedule of tfmot's protocol: prunes from step 10 on."""

    def __call__(self, step):
        return np.bool_(step >= 10), np.float32(0.75)


def test_a_step_schedule_is_asked_at_the_step_where_the_round_starts():
    schedule = schedules.resolve(Steps())
    assert schedule.keep(1, 9)(100, 100) == 100
    assert schedule.keep(1, 10)(100, 100) == 25
    assert schedule.keep(2, 99)(20, 100) == 20
    assert schedule.check(7) == 7


def test_a_schedule_is_told_by_its_answer():
    class Densities:
        """Has the `get_config` of tfmot's, as a Keras `LearningRateSchedule` does."""

        def __call__(self, round):
            return np.float32(1 - round / 4)

        def get_config(self):
            return {}

    assert schedules.resolve(Densities()).keep(2, 0)(100, 100) == 50
    assert schedules.resolve(lambda step: (True, 0.5)).keep(1, 8)(100, 100) == 50


@pytest.mark.parametrize("answer", ["half", None, (1, 2, 3)])
def test_an_answer_of_no_kind_is_told(answer):
    with pytest.raises(ValueError, match=r"must answer with a density.*Received.*in round 0"):
        schedules.resolve(lambda round: answer)


def test_a_schedule_of_python_ifs_is_asked_back_to_its_last_turn():
    asked = []

    def schedule(step):
        asked.append(step)
        if step in (3, 5):
            return True, step / 10
        return False, 0.0

    late = schedules.resolve(schedule).keep(1, 8)
    with pytest.warns(UserWarning, match="prunes at step 5.*sparsity 0.5 comes at step 8"):
        assert late(100, 100) == 50
    assert [int(s) for s in asked if np.ndim(s) == 0] == [0, 8, 7, 6, 5]


@pytest.mark.parametrize("bad", [1.0, 1.5, -0.5, np.nan])
def test_a_sparsity_out_of_range_is_told_where_it_would_prune(bad):
    def schedule(step):
        return step == 3, np.where(step == 3, bad, 0.5)

    with pytest.raises(ValueError, match=rf"\[0, 1\).*{bad} at step 3"):
        schedules.resolve(schedule).keep(1, 8)
    assert schedules.resolve(schedule).keep(1, 3 - 1)(100, 100) == 100


def test_an_object_with_keep_and_check_is_taken_as_it_is():
    schedule = schedules.Fraction(0.3)
    assert schedules.resolve(schedule) is schedule


def test_schedules_show_their_arguments():
    assert repr(schedules.resolve(0.2)) == "Fraction(fraction=0.2)"
    assert repr(schedules.resolve([1, 0.5])) == "Densities(densities=(1.0, 0.5))"
