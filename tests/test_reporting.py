"""The report over replicates: statistics, verdicts, numbers, page and figures."""

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery.experiments import reporting
from keras_lottery.experiments.reporting import RunData, styles
from keras_lottery.experiments.reporting.statistics import t_quantile

CONFIG = {"model": "net", "dataset": "digits", "facts": {"sizes": {"test": 200}}}


def record(kind, round, accuracy, replicate=0, step=10, **changes):
    found = {"step": step, "test_accuracy": accuracy}
    curve = {"step": [5, 10], "test_accuracy": [accuracy, None]}
    return {
        "kind": kind,
        "replicate": replicate,
        "round": round,
        "density": 0.5**round,
        "layer_density": {"net/a/kernel": 0.5**round, "net/b/kernel": 0.5**round},
        "seconds": 1.5,
        "early_stop": found,
        "end": {**found, "train_accuracy": math.nan},
        "curve": curve,
        **changes,
    }


def ladder(kind, *accuracies, first=0, **changes):
    return [record(kind, r, a, **changes) for r, a in enumerate(accuracies, start=first)]


def test_three_numbers_are_summed_up_by_hand():
    found = reporting.summarize({0: [1.0], 1: [2.0], 2: [3.0]})
    assert (found.n, found.mean, found.std, found.bar("range")) == (3, 2.0, 1.0, (1.0, 3.0))
    half = 4.302653 / math.sqrt(3)
    assert found.bar("ci") == pytest.approx((2 - half, 2 + half), rel=1e-5)


def test_branches_of_a_replicate_are_averaged_first_and_nan_is_left_out():
    found = reporting.summarize({0: [1.0, 3.0, math.nan], 1: [4.0], 2: [math.nan]})
    assert (found.n, found.replicates, found.mean, found.least, found.most) == (3, 2, 3.0, 1, 4)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.7062), (4, 2.77645), (30, 2.04227)])
def test_quantiles_are_those_of_the_tables(freedom, value):
    assert t_quantile(freedom) == pytest.approx(value, rel=1e-4)


def test_with_one_replicate_the_test_images_judge():
    (found,) = reporting.verdicts(ladder("ticket", 0.9, 0.86, 0.88, 0.8), n_test=200)
    assert found.margin == pytest.approx(0.03) and "200 test images" in found.basis
    assert (found.matches_to, found.falls_at, found.exceptions) == (0.25, 0.125, 1)
    assert (found.peak, found.peak_density, found.fastest) == (0.9, 1.0, 1.0)
    assert "(but for 1 denser round), below from 12.5% on" in found.sentence()


def test_with_replicates_their_deviation_judges():
    rows = ladder("ticket", 0.8, 0.85, step=10) + ladder("ticket", 0.9, 0.75, replicate=1)
    rows += ladder("reinitialize", 0.7, first=1)
    ticket, other = reporting.verdicts(rows, n_test=None)
    assert ticket.margin == pytest.approx(0.1 / math.sqrt(2)) and "2 replicates" in ticket.basis
    assert (ticket.matches_to, other.matches_to) == (0.5, None)
    assert other.sentence().startswith("random re-initialization: never within 7.1 points")


def test_two_replicates_that_agree_by_chance_do_not_judge_alone():
    rows = ladder("ticket", 0.9, 0.88) + ladder("ticket", 0.9, 0.88, replicate=1)
    (found,) = reporting.verdicts(rows, n_test=200)
    assert found.margin == pytest.approx(0.03) and "200 test images" in found.basis
    three = rows + ladder("ticket", 0.9, 0.88, replicate=2)
    assert reporting.verdicts(three, n_test=200)[0].margin == pytest.approx(0, abs=1e-9)


def test_without_a_dense_round_there_is_no_verdict():
    assert reporting.verdicts(ladder("ticket", 0.9, first=1), n_test=200) == []


@given(st.permutations(range(4)))
def test_the_order_of_records_does_not_matter(order):
    rows = ladder("ticket", 0.9, 0.88, 0.8, 0.7)
    assert reporting.verdicts([rows[i] for i in order], 200) == reporting.verdicts(rows, 200)


def test_csv_has_one_line_for_each_training():
    rows = ladder("ticket", 0.9, 0.8) + ladder("reinitialize", math.nan, first=1, branch_seed=1)
    found = list(csv.DictReader(io.StringIO(reporting.numbers([RunData("a,b", CONFIG, rows)]))))
    assert [r["early_stop_test_accuracy"] for r in found] == ["0.9", "0.8", ""]
    assert (found[2]["run"], found[2]["branch_seed"], found[2]["density"]) == ("a,b", "1", "0.5")


def test_json_has_everything_and_no_nan():
    rows = ladder("ticket", 0.9, 0.8)
    (found,) = json.loads(reporting.numbers([RunData("a", CONFIG, rows)], "json"))["runs"]
    assert found["config"] == CONFIG and found["records"][0]["curve"] == rows[0]["curve"]
    assert found["records"][0]["end"]["train_accuracy"] is None
    assert found["points"][1]["values"]["end_test_accuracy"]["mean"] == 0.8
    assert found["verdicts"][0]["falls_at"] == 0.5


def test_more_than_ten_kinds_look_different():
    kinds = [*styles.LABELS, *(f"noise:scale={i}" for i in range(20))]
    looks = styles.of_kinds(kinds)
    assert len({tuple(look.values()) for look in looks.values()}) == len(kinds)
    assert looks["reinitialize"] == styles.of_kinds(["x", "reinitialize"])["reinitialize"]


@given(st.lists(st.floats(1e-4, 1), min_size=1, max_size=40))
def test_ticks_are_few_and_present(densities):
    found = styles.ticks(densities)
    assert len(found) <= 8 and set(found) <= set(densities) and found[0] == max(densities)


HOSTILE = "<script>alert(1)</script>$\\frac$&"


def test_a_page_has_every_kind_and_loads_nothing(tmp_path):
    rows = ladder("ticket", 0.9, 0.88, 0.8) + ladder("ticket", 0.92, replicate=1)
    rows += [r for i in range(11) for r in ladder(f"noise:scale={i}", math.nan, 0.5, first=1)]
    run = RunData(HOSTILE, CONFIG, rows)
    text = reporting.write([run], tmp_path, interval="ci", rounds=[0, 2]).read_text()
    assert all(f"noise on the initial weights, scale {i}</td>" in text for i in range(11))
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text
    assert not re.search(r"https?://|url\(|@import", text)
    for name in ("accuracy", "accuracy_end", "early_stop", "curves", "layers"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert b"<svg" in (tmp_path / f"{name}.svg").read_bytes()
    assert {p.suffix for p in tmp_path.iterdir()} == {".html", ".png", ".svg", ".csv", ".json"}


def test_runs_are_compared_with_what_differs(tmp_path):
    runs = [RunData("a", {**CONFIG, "seed": 0}, ladder("ticket", 0.9, 0.8))]
    runs += [RunData("b", {**CONFIG, "seed": 7}, ladder("ticket", 0.9, first=1))]
    text = reporting.write(runs, tmp_path, formats=()).read_text()
    assert "<tr><td>seed</td><td>0</td><td>7</td></tr>" in text
    assert "has not finished" in text and (tmp_path / "comparison.png").exists()


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        ([], {}, "one run or more"),
        ([RunData("a", CONFIG, [])], {}, "no finished round of 'a'"),
        ([RunData("a", CONFIG, ladder("ticket", 0.9))], {"interval": "x"}, "Received: 'x'"),
        ([RunData("a", CONFIG, ladder("ticket", 0.9))], {"rounds": [3]}, r"Received: \[3\]"),
        ([RunData("a", CONFIG, ladder("ticket", 0.9))], {"formats": "csv"}, "Received: 'csv'"),
    ],
)
def test_errors_come_before_anything_is_written(runs, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reporting.write(runs, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()
