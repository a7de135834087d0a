"""From a run or a ticket to files: which round, which model, where, and what stops it."""

import json
import math
import os

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_lottery import Ticket, enforcement, weights
from keras_lottery.experiments import deploying
from keras_lottery.experiments.config import FORMAT
from keras_lottery.experiments.store import RECORD, Store, newest_run, sparsest_within
from keras_lottery.export import measure

CALLS = []
TINY = f"{__name__}:tiny"
ABOUT = {"name": TINY, "input_shape": [2, 2], "classes": 3}


def tiny(shape, classes):
    """16 and 12 weights."""
    CALLS.append((shape, classes))
    layers = [keras.Input(shape), L.Flatten(), L.Dense(4, "relu"), L.Dense(classes)]
    return keras.Sequential(layers)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def record(round, density, accuracy, kind="ticket", replicate=0):
    where = {"kind": kind, "replicate": replicate, "branch_seed": 0, "round": round}
    return {**where, "density": density, "end": {"val_accuracy": accuracy, "test_accuracy": 0.5}}


def ladder(*accuracies):
    """Rounds 0, 1, ... at densities 1, 1/2, 1/4, ..."""
    return [record(i, 0.5**i, a) for i, a in enumerate(accuracies)]


def ticket(density=1.0, **metadata):
    """Of `tiny`, its first weights alive."""
    model = tiny((2, 2), 3)
    masks = {
        p: np.arange(v.numpy().size).reshape(v.shape) < density * v.numpy().size
        for p, v in weights.prunable(model).items()
    }
    return Ticket.of(model, masks, {"model": ABOUT, **metadata})


def started(folder):
    """The folder of a run of which nothing has finished."""
    store = Store(folder)
    store.save_config({"format": FORMAT, "settings": {"model": TINY}})
    return store


def run(folder, records):
    """A run's folder as `keras-lottery find` leaves it."""
    store = started(folder)
    for row in records:
        place = store.place(row["replicate"], row["round"], row["kind"])
        place.begin()
        found = ticket(row["density"], round=row["round"], replicate=row["replicate"])
        trained = ticket(
            row["density"], weights="trained", round=row["round"], replicate=row["replicate"]
        )
        place.finish(row, found, trained)
    return store


# The sparsest round ---------------------------------------------------------------------

NAN = math.nan
CHOICES = {
    "the last of those that are as good": ((0.98, 0.98, 0.98, 0.5), 0.01, 2),
    "a fall before a return is no matter": ((0.98, 0.5, 0.975, 0.9), 0.01, 2),
    "better than dense is good": ((0.9, 0.95, 0.99), 0.0, 2),
    "none but the dense one": ((0.98, 0.5, 0.4), 0.01, 0),
    "as much below as may be": ((0.8, 0.7), 0.1, 1),
    "a bit more below": ((0.8, 0.6999), 0.1, 0),
    "tolerance 0": ((0.9, 0.9, 0.8999), 0.0, 1),
    "tolerance 1": ((0.9, 0.1, 0.0), 1.0, 2),
    "a round without a number": ((0.9, NAN, 0.9, None, NAN), 0.5, 2),
    "the dense one alone": ((0.9,), 0.01, 0),
}


@pytest.mark.parametrize(("accuracies", "tolerance", "expected"), CHOICES.values(), ids=CHOICES)
def test_the_sparsest_round_within_the_tolerance_is_chosen(accuracies, tolerance, expected):
    assert sparsest_within(ladder(*accuracies), tolerance) == expected


def test_of_two_rounds_of_one_density_the_better_is_chosen():
    rows = [record(0, 1.0, 0.9), record(1, 0.5, 0.91), record(2, 0.5, 0.93), record(3, 0.5, 0.92)]
    assert sparsest_within(rows, 0.01) == 2


def test_controls_choose_nothing():
    rows = [*ladder(0.9, 0.9), record(2, 0.25, 0.9, kind="reinitialize")]
    assert sparsest_within(rows, 0.01) == 1


@given(
    st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=8),
    st.integers(0, 20).map(lambda n: n / 20),
    st.randoms(),
)
def test_no_sparser_round_was_good_and_the_order_of_lines_does_not_matter(accuracies, t, random):
    rows = ladder(*accuracies)
    random.shuffle(rows)
    chosen = sparsest_within(rows, t)
    good = [round(20 * (accuracies[0] - a)) <= round(20 * t) for a in accuracies]
    assert good[chosen] and not any(good[chosen + 1 :])


@pytest.mark.parametrize("tolerance", [-0.01, 1.01, NAN])
def test_a_tolerance_out_of_range_is_refused(tolerance):
    with pytest.raises(ValueError, match=rf"tolerance.*\[0, 1\].*{tolerance}"):
        sparsest_within(ladder(0.9), tolerance)


@pytest.mark.parametrize("dense", [None, NAN])
def test_without_a_dense_accuracy_there_is_nothing_to_compare_with(dense):
    with pytest.raises(ValueError, match=r"dense round has no validation accuracy.*--round"):
        sparsest_within(ladder(dense, 0.9), 0.01)


def test_a_run_of_controls_has_no_finished_round():
    with pytest.raises(ValueError, match="no finished round"):
        sparsest_within([record(1, 0.5, 0.9, kind="random_mask")], 0.01)


# The run and the round ------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path):
    return run(tmp_path / "run", ladder(0.98, 0.99, 0.975, 0.8)).folder


@pytest.mark.parametrize(("round", "index"), [("best", 2), ("last", 3), ("1", 1), ("0", 0)])
def test_a_round_of_a_run_is_its_trained_weights(finished, round, index):
    found = deploying.source(finished, round, tolerance=0.01)
    about = found.ticket.metadata
    assert (about["weights"], about["round"]) == ("trained", index)
    assert found.architecture == TINY
    assert (found.stem, found.folder) == (f"round_{index:02d}", finished / "export")
    assert f"round {index}: {0.5**index:.2%} density" in found.words
    assert str(finished) in found.words


def test_what_is_said_of_a_round_names_both_accuracies_beside_dense(finished):
    words = deploying.source(finished, "last").words
    assert words.endswith(
        "validation accuracy 80.00% (dense 98.00%), test accuracy 50.00% (dense 50.00%)"
    )


def test_an_unknown_accuracy_is_said_to_be_unknown(tmp_path):
    run(tmp_path / "run", ladder(0.98, None))
    assert "accuracy unknown (dense 98.00%)" in deploying.source(tmp_path / "run", "last").words


def test_the_last_round_is_the_last_by_number(tmp_path):
    run(tmp_path / "run", ladder(0.9, 0.9, 0.9)[::-1])
    assert deploying.source(tmp_path / "run", "last").stem == "round_02"


@pytest.mark.parametrize("round", ["4", "-1", "first", "", "1.0"])
def test_a_round_that_is_not_there_is_refused_by_name(finished, round):
    with pytest.raises(ValueError, match=rf"`round`.*last or one of \[0, 1, 2, 3\].*'{round}'"):
        deploying.source(finished, round)


def test_a_folder_without_a_run_and_a_path_without_anything_are_named(tmp_path):
    with pytest.raises(ValueError, match="not the folder of a run"):
        deploying.source(tmp_path)
    started(tmp_path / "run")
    with pytest.raises(ValueError, match=r"No round of replicate 0 .*run' has finished.*are: \[\]"):
        deploying.source(tmp_path / "run")
    with pytest.raises(ValueError, match=r"no run and no ticket at '.*nothing'"):
        deploying.source(tmp_path / "nothing")


def test_a_replicate_is_told_apart_and_one_that_is_not_there_is_refused(tmp_path):
    rows = [*ladder(0.9, 0.9), record(0, 1.0, 0.8, replicate=2)]
    folder = run(tmp_path / "run", [*rows, record(7, 0.1, 0.9, kind="random_mask")]).folder
    found = deploying.source(folder, "last", replicate=2)
    assert found.stem == "replicate_2_round_00"
    assert found.ticket.metadata["replicate"] == 2
    assert deploying.source(folder, "last").stem == "round_01"
    with pytest.raises(ValueError, match=r"replicate 1 .*finished rounds are: \[0, 2\]"):
        deploying.source(folder, replicate=1)


@pytest.mark.parametrize("damage", ['{"kind": "tick', "3", ""])
def test_a_damaged_record_is_named(finished, damage):
    place = Store(finished).place(0, 2)
    (place.folder / RECORD).write_text(damage)
    with pytest.raises(ValueError, match=r"round_02/record\.json.*Remove the folder"):
        deploying.source(finished)


def test_a_run_without_trained_weights_says_what_to_do(finished):
    Store(finished).place(0, 1).trained.unlink()
    with pytest.raises(ValueError, match=r"round_01/trained\.safetensors.*Remove the folder"):
        deploying.source(finished, "1")
    assert deploying.source(finished, "2").stem == "round_02"


def test_a_run_of_another_format_is_refused(finished):
    config = finished / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "format": 1}))
    with pytest.raises(ValueError, match=f"format 1, this package reads {FORMAT}"):
        deploying.source(finished)


@pytest.mark.parametrize("trained", [True, False])
def test_a_ticket_file_says_whether_it_is_trained(tmp_path, trained):
    path = tmp_path / "mine.v2.safetensors"
    ticket(0.5, **({"weights": "trained"} if trained else {})).save(path)
    found = deploying.source(path)
    assert (found.stem, found.folder) == ("mine.v2", tmp_path / "export")
    assert "50.00% density" in found.words
    assert ("not trained" in found.words) == (not trained)


def test_the_newest_run_is_the_one_whose_config_was_written_last(tmp_path):
    for age, name in enumerate(["b", "c", "a"]):
        started(tmp_path / name)
        os.utime(tmp_path / name / "config.json", ns=(0, 10**9 - age))
    (tmp_path / "no_run").mkdir()
    assert newest_run(tmp_path) == tmp_path / "b"
    os.utime(tmp_path / "a" / "config.json", ns=(0, 10**9 + 1))
    assert newest_run(str(tmp_path)) == tmp_path / "a"


def test_without_a_run_it_is_said_how_to_make_one(tmp_path):
    for parent in (tmp_path, tmp_path / "runs"):
        with pytest.raises(ValueError, match=r"no run under .*keras-lottery find"):
            newest_run(parent)


# The model ------------------------------------------------------------------------------


def test_a_ticket_builds_its_model_with_its_weights_under_its_masks():
    found = ticket(0.5)
    model = deploying.build(found, TINY)
    for value, array in zip(model.get_weights(), found.weights.values(), strict=True):
        np.testing.assert_array_equal(value, array)
    masks = enforcement.enforced_masks(model)
    assert sum(m.sum() for m in masks.values()) == 14


def test_an_architecture_takes_the_place_of_the_models_name(tmp_path):
    found = ticket(0.5, model=None)
    tiny((2, 2), 3).save(tmp_path / "model.keras")
    model = deploying.build(found, str(tmp_path / "model.keras"))
    np.testing.assert_array_equal(model.get_weights()[0], next(iter(found.weights.values())))


@pytest.mark.parametrize("name", ["missing.keras", "damaged.keras"])
def test_an_architecture_that_cannot_be_loaded_is_named(tmp_path, name):
    (tmp_path / "damaged.keras").write_bytes(b"PK")
    with pytest.raises(ValueError, match=f"Cannot load '.*{name}'"):
        deploying.build(ticket(), str(tmp_path / name))


def test_a_ticket_of_another_model_is_refused(tmp_path):
    keras.Sequential([keras.Input((2, 2)), L.Dense(4)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="belongs to another architecture"):
        deploying.build(ticket(), str(tmp_path / "other.keras"))
    with pytest.raises(ValueError, match="belongs to another architecture"):
        deploying.build(ticket(model={**ABOUT, "classes": 2}), TINY)


HOSTILE = {
    "nothing": None,
    "a name alone": ABOUT["name"],
    "no shape": {"name": ABOUT["name"], "classes": 3},
    "words for sizes": {**ABOUT, "input_shape": ["touch", "file"]},
    "a word for a shape": {**ABOUT, "input_shape": "22"},
    "a word for classes": {**ABOUT, "classes": "3"},
    "a truth for a size": {**ABOUT, "input_shape": [True, 2]},
    "a size below 1": {**ABOUT, "classes": -1},
    "half a size": {**ABOUT, "input_shape": [2.5]},
    "a list for a name": {**ABOUT, "name": ["a"]},
}


@pytest.mark.parametrize("about", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_but_sizes_is_passed_to_what_a_ticket_names(about):
    found = ticket(model=about)
    CALLS.clear()
    with pytest.raises(ValueError, match=r"does not say how.*--architecture=model\.keras"):
        deploying.build(found)
    assert CALLS == []


def test_code_that_a_ticket_file_names_is_run_only_if_the_user_names_it_too():
    found = ticket()
    CALLS.clear()
    with pytest.raises(ValueError, match=f"--architecture={TINY}"):
        deploying.build(found)
    assert CALLS == []
    assert deploying.build(ticket(), TINY).built


# Writing --------------------------------------------------------------------------------

NAMES = {
    "keras": "m.keras",
    "saved_model": "m_saved_model",
    "litert": "m.tflite",
    "compact": "m_compact.keras",
}


def test_every_format_is_written_and_computes_the_same(tmp_path):
    model, said = deploying.build(ticket(0.5), TINY), []
    found = deploying.write(model, list(NAMES), tmp_path / "a" / "b", "m", say=said.append)
    assert {name: path.name for name, path in found.items()} == NAMES
    assert [line.split() for line in said] == [[n, str(p)] for n, p in found.items()]
    rows = measure(found, model, repeats=1, verbose=0).rows
    assert max(r.difference for r in rows) < 1e-5
    assert rows[3].parameters < rows[0].parameters


def write(folder, *formats, **options):
    return deploying.write(
        deploying.build(ticket(0.5), TINY), formats, folder, "m", say=lambda text: None, **options
    )


def contents(folder):
    return {p.name: p.read_bytes() if p.is_file() else "folder" for p in folder.iterdir()}


def test_a_format_named_twice_is_written_once(tmp_path):
    assert list(write(tmp_path, "keras", "keras")) == ["keras"]


@pytest.mark.parametrize("formats", [(), ("",), ("keras", "h5")])
def test_unknown_formats_are_refused_before_anything_is_made(tmp_path, formats):
    with pytest.raises(ValueError, match="Formats are keras, saved_model, litert, compact"):
        write(tmp_path / "out", *formats)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("name", ["litert", "saved_model"])
def test_what_is_there_is_refused_and_nothing_is_written(tmp_path, name):
    (tmp_path / NAMES[name]).write_text("mine")
    with pytest.raises(ValueError, match=f"{NAMES[name]} exists already.*--overwrite.*--out"):
        write(tmp_path, "keras", name)
    assert contents(tmp_path) == {NAMES[name]: b"mine"}


def test_a_link_to_nowhere_is_there(tmp_path):
    (tmp_path / "m.keras").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"exists already.*--overwrite"):
        write(tmp_path, "keras")
    assert (tmp_path / "m.keras").is_symlink()


def test_what_the_caller_will_write_may_not_be_there_either(tmp_path):
    (tmp_path / "m_measured.json").write_text("mine")
    with pytest.raises(ValueError, match=r"m_measured\.json exists already"):
        write(tmp_path, "keras", also=[tmp_path / "m_measured.json"])
    assert contents(tmp_path) == {"m_measured.json": b"mine"}


def test_asked_for_what_is_there_is_replaced(tmp_path):
    first = contents(tmp_path) if write(tmp_path, "keras", "saved_model") else {}
    (tmp_path / "m.keras").write_text("mine")
    write(tmp_path, "keras", "saved_model", overwrite=True)
    assert contents(tmp_path).keys() == first.keys()
    assert len(contents(tmp_path)["m.keras"]) == pytest.approx(len(first["m.keras"]), abs=10)


def test_a_folder_is_never_replaced_by_a_file_nor_is_anything_written_before(tmp_path):
    (tmp_path / "m.tflite").mkdir()
    with pytest.raises(ValueError, match=r"m\.tflite' is a folder"):
        write(tmp_path, "keras", "litert", overwrite=True)
    assert contents(tmp_path) == {"m.tflite": "folder"}


def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    for folder in ("file", "file/out"):
        with pytest.raises(ValueError, match=f"Cannot write to '.*{folder}'"):
            write(tmp_path / folder, "keras")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"out' cannot be written"):
        write(tmp_path / "out", "keras")
    assert contents(tmp_path) == {"file": b"mine", "out": "folder"}


@pytest.mark.parametrize("error", [RuntimeError, OSError, ValueError])
def test_a_format_that_fails_is_named(tmp_path, monkeypatch, error):
    def fail(*args):
        raise error("computes something else")

    monkeypatch.setitem(deploying.WRITERS, "litert", (".tflite", fail))
    with pytest.raises(ValueError, match="litert: computes something else"):
        write(tmp_path, "keras", "litert")
    assert list(contents(tmp_path)) == ["m.keras"]


def test_dense_counterparts_are_the_same_network_with_no_zeros(tmp_path):
    model = deploying.build(ticket(0.5), TINY)
    found = deploying.dense_counterparts(model, list(NAMES), tmp_path)
    assert found.keys() == NAMES.keys()
    assert found["compact"] == found["keras"]
    dense = keras.saving.load_model(found["keras"])
    rows = measure(found, dense, repeats=1, verbose=0).rows
    assert [(r.density, r.parameters) for r in rows] == [(1.0, model.count_params())] * 4
    assert max(r.difference for r in rows) < 1e-5
    assert list(deploying.dense_counterparts(model, ["litert"], tmp_path / "b")) == ["litert"]


def test_a_subclassed_model_is_refused_before_its_dense_counterpart_is_tried():
    with pytest.raises(ValueError, match=r"--measure needs a Sequential.*a subclassed Subclassed"):
        deploying.check_measurable(Subclassed())
    deploying.check_measurable(tiny((2, 2), 3))
