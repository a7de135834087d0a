"""The measuring table: each of its numbers, by hand where that can be, and what it refuses."""

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_lottery import export, wrappers
from keras_lottery.export import Measurement, Spread, comparing, measure
from keras_lottery.export.artefacts import Artefact
from keras_lottery.export.comparing import Subject

QUICK = {"repeats": 1, "verbose": 0}


def chain(shape, *layers, **kwargs):
    return keras.Sequential([keras.Input(shape, **kwargs), *layers])


def linear(*kernel):
    """A model of two inputs and one output with these two weights."""
    model = chain((2,), L.Dense(1, use_bias=False), name="x")  # the input's name
    model.layers[0].kernel.assign(np.reshape(kernel, (2, 1)))
    return model


def written(model, folder, name="model"):
    """The files of each kind, and Keras's own SavedModel."""
    model.export(str(folder / f"{name}_plain"), verbose=False)
    return {
        "keras": export.keras(model, folder / f"{name}.keras", compress=True),
        "plain": folder / f"{name}_plain",
        "saved_model": export.saved_model(model, folder / name),
        "litert": export.litert(model, folder / f"{name}.tflite"),
    }


def test_a_spread_is_the_median_and_the_quartiles():
    assert Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]) == Spread(3.0, 2.0, 4.0)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.randoms())
def test_a_spread_is_ordered_and_the_order_of_values_does_not_matter(values, random):
    found = Spread.of(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)
    random.shuffle(values)
    assert Spread.of(values) == found


# Whole measurements ---------------------------------------------------------------------


def test_one_changed_weight_differs_by_what_it_is_worth(tmp_path):
    right, changed = linear(1, 2), linear(1, 2.5)
    # The outputs are 1 + 2 * 4 = 9 and 1; with the changed weight 11 and 1.
    x = {"x": [[1, 4], [1, 0]]}
    found = measure(written(changed, tmp_path), right, x=x, **QUICK)
    assert [r.difference for r in found.rows] == pytest.approx([2 / 9] * 4)


def test_the_given_examples_are_those_compared(tmp_path):
    path = export.keras(linear(1, 2.5), tmp_path / "m.keras")
    assert measure(path, linear(1, 2), x={"x": np.eye(1, 2)}, **QUICK).rows[0].difference == 0
    assert measure(path, linear(1, 2), **QUICK).rows[0].difference > 0


def several(names):
    inputs = [keras.Input((2,), name=name) for name in names]
    return keras.Model(inputs, L.Dense(1)(L.Concatenate()(inputs)))


def of_a_dict():
    inputs = {name: keras.Input((2,), name=name) for name in ("b", "a")}
    return keras.Model(inputs, L.Dense(1)(L.Concatenate()([inputs["b"], inputs["a"]])))


def many_outputs(names=None):
    inputs = keras.Input((2,))
    outputs = [L.Dense(1)(inputs) for _ in range(12)]
    return keras.Model(inputs, dict(zip(names, outputs, strict=True)) if names else outputs)


MODELS = {
    "several inputs": lambda: several(["z", "a", "m_10", "m_9"]),
    "unnamed inputs": lambda: several([None] * 11),
    "a dict of inputs": of_a_dict,
    "integer inputs": lambda: chain(
        (5,), L.Embedding(2, 3), L.Flatten(), L.Dense(1), dtype="int32"
    ),
    "twelve outputs": many_outputs,
    "a dict of outputs": lambda: many_outputs([f"o{i}" for i in range(12)]),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
def test_inputs_and_outputs_of_every_form_are_compared_with_their_own(tmp_path, build):
    model = build()
    paths = written(model, tmp_path)
    found = measure(paths, model, batch_sizes=(3,), **QUICK)
    assert [r.name for r in found.rows] == list(paths)
    assert max(r.difference for r in found.rows) < 1e-6
    other = build()  # other weights, so that a mixed-up order could not pass
    assert min(r.difference for r in measure(paths, other, **QUICK).rows) > 1e-2


def pruned():
    """Half of 32 + 16 weights; 4 of 8 units have no alive weight."""
    model = chain((4,), L.Dense(8, "relu"), L.Dense(2))
    first, second = (layer.kernel for layer in model.layers)
    first.assign(np.where(np.arange(8) < 4, 1.0, 0.0) * np.ones((4, 8)))
    second.assign(np.where(np.arange(8) < 4, 1.0, 0.0)[:, None] * np.ones((8, 2)))
    return model


def test_a_row_tells_density_parameters_flops_and_bytes(tmp_path):
    model = pruned()
    paths = written(model, tmp_path)
    found = measure(paths, model, **QUICK)
    for measured, path in zip(found.rows, paths.values(), strict=True):
        assert measured.density == 0.5
        assert measured.parameters == 4 * 8 + 8 + 8 * 2 + 2
        assert measured.flops == 2 * 4 * 8 + 8 + 2 * 8 * 2 + 2
        assert measured.bytes == Artefact.at(path).bytes > measured.gzipped > 0
        assert measured.load_seconds > 0
        assert list(measured.latency) == [1, 32]
        assert all(s.low == s.median == s.high > 0 for s in measured.latency.values())


def test_times_are_those_of_the_clock(tmp_path, monkeypatch):
    clock = iter(range(10**6))  # a quarter of a second between two looks
    monkeypatch.setattr(comparing.time, "perf_counter", lambda: next(clock) / 4)
    path = export.keras(linear(1, 2), tmp_path / "m.keras")
    (measured,) = measure(path, **{**QUICK, "repeats": 5}).rows
    assert measured.load_seconds == 0.25
    assert measured.latency == {n: Spread(250.0, 250.0, 250.0) for n in (1, 32)}


def test_zeros_make_each_compressed_file_smaller_than_its_dense_counterpart(tmp_path):
    dense = chain((128,), L.Dense(128))
    sparse = keras.models.clone_model(dense)
    kernel = dense.layers[0].kernel.numpy()
    sparse.layers[0].kernel.assign(kernel * (np.random.default_rng(0).random((128, 128)) < 0.1))
    paths, dense_paths = written(sparse, tmp_path), written(dense, tmp_path, "dense")
    found = measure(paths, sparse, dense_paths, **QUICK)
    names = [name for kind in paths for name in (kind, f"{kind}, dense")]
    assert [r.name for r in found.rows] == names
    rows = {r.name: r for r in found.rows}
    for name in ("keras", "saved_model", "litert"):
        assert rows[name].bytes < rows[f"{name}, dense"].bytes
        assert rows[name].gzipped < rows[f"{name}, dense"].gzipped
    assert rows["plain"].bytes == pytest.approx(rows["plain, dense"].bytes, rel=0.01)


def test_a_dense_counterpart_comes_behind_its_own_and_is_compared_with_nothing(tmp_path):
    model, dense = pruned(), keras.models.clone_model(pruned())
    things = {"a": model, "b": export.litert(model, tmp_path / "b.tflite"), "c": model}
    beside = {"c": dense, "b": export.litert(dense, tmp_path / "dense.tflite", sparse=False)}
    found = measure(things, model, beside, **QUICK)
    assert [(r.name, r.is_dense, r.difference is None) for r in found.rows] == [
        ("a", False, False),
        ("b", False, False),
        ("b, dense", True, True),
        ("c", False, False),
        ("c, dense", True, True),
    ]
    assert [r.density for r in found.rows] == [0.5, 0.5, None, 0.5, 1.0]


def test_a_compact_model_has_its_own_numbers(tmp_path):
    model = pruned()
    path = export.keras(export.compact(model, verbose=0), tmp_path / "compact.keras")
    (measured,) = measure({"compact": path}, model, **QUICK).rows
    assert (measured.density, measured.parameters) == (1.0, 4 * 4 + 4 + 4 * 2 + 2)
    assert measured.flops == 2 * 4 * 4 + 4 + 2 * 4 * 2 + 2
    assert measured.difference < 1e-6


def test_a_model_in_memory_has_no_bytes():
    model = pruned()
    (measured,) = measure(model, model, **QUICK).rows
    assert measured.name == model.name
    assert (measured.bytes, measured.gzipped, measured.load_seconds) == (None, None, None)
    assert (measured.density, measured.difference) == (0.5, 0.0)


def test_masks_of_wrapped_layers_count_as_zeros_and_not_as_parameters():
    model = chain((4,), wrappers.Masked(L.Dense(2)))
    (layer,) = model.layers
    layer.masks = {path: np.arange(8).reshape(4, 2) < 2 for path in layer.masks}
    (measured,) = measure(model, **QUICK).rows
    assert (measured.density, measured.parameters) == (0.25, 10)


def test_without_a_reference_a_file_of_a_graph_tells_its_bytes_alone(tmp_path):
    path = written(pruned(), tmp_path)["saved_model"]
    (measured,) = measure(path, **QUICK).rows
    assert (measured.density, measured.parameters, measured.flops) == (None, None, None)
    assert (measured.difference, measured.is_dense) == (None, False)


def test_a_model_without_prunable_weights_has_no_density():
    (measured,) = measure(chain((4, 2), L.GlobalAveragePooling1D()), **QUICK).rows
    assert (measured.density, measured.parameters) == (None, 0)


BAD_X = {
    "a wrong shape under the right name": ({"x": np.ones((2, 5))}, r"\(2, 5\)|\(1, 5\)"),
    "a wrong shape under another name": ({"q": np.ones((2, 5))}, r"\(2, 5\)|\(1, 5\)"),
    "one input too many": ({"x": np.ones((2, 2)), "y": np.ones((2, 2))}, "'y'"),
    "an array": (np.ones((2, 2)), "dict of input name to array.*'x'.*ndarray"),
    "nothing": ({}, "dict of input name to array"),
    "no examples": ({"x": np.ones((0, 2))}, "at least one"),
    "a number": ({"x": 3.0}, "at least one"),
    "examples not as many": ({"x": np.ones((2, 2)), "y": np.ones((3, 2))}, "as many"),
}


@pytest.mark.parametrize(("x", "message"), BAD_X.values(), ids=BAD_X.keys())
def test_examples_that_do_not_fit_are_an_error_in_plain_words(x, message):
    model = keras.Model(inputs := keras.Input((2,), name="x"), L.Dense(1)(inputs))
    with pytest.raises(ValueError, match=message):
        measure(model, x=x, **QUICK)


# What is refused ------------------------------------------------------------------------

BAD_ARGUMENTS = {
    "no artefact": ({"artefacts": {}}, "at least one artefact"),
    "a number": ({"artefacts": 3}, "Keras model or a path. Received: 3"),
    "no sizes": ({"batch_sizes": ()}, "batch_sizes"),
    "one size, no list": ({"batch_sizes": 4}, "batch_sizes.*Received: 4"),
    "a size of 0": ({"batch_sizes": (1, 0)}, "batch_sizes.*Received: 0"),
    "half a size": ({"batch_sizes": (1.5,)}, "batch_sizes.*Received: 1.5"),
    "no repeats": ({"repeats": 0}, "repeats.*Received: 0"),
    "half a repeat": ({"repeats": 1.5}, "repeats.*Received: 1.5"),
    "a reference that is none": ({"reference": "model.keras"}, "Keras.*Received: 'model.keras'"),
    "dense of nothing": ({"dense": {"y": linear}}, r"dense.*\['sequential.*\].*'y'"),
    "dense that is no dict": ({"dense": "dense.keras"}, r"dense.*\['sequential.*\].*'dense.keras'"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_a_wrong_argument_is_refused_before_anything_is_loaded(monkeypatch, changes, message):
    monkeypatch.setattr(Subject, "load", lambda self: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"(?i){message}"):
        measure(**{"artefacts": linear(1, 2), **QUICK, **changes})


def test_a_model_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match=r"no weights yet.*keras\.Input"):
        measure(keras.Sequential([L.Dense(2)]), **QUICK)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(1, use_bias=False)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused_but_its_saved_model_is_not(tmp_path):
    model = Subclassed()
    model(np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"subclassed model\. Measure its SavedModel instead"):
        measure(model, **QUICK)
    path = export.saved_model(model, tmp_path / "m")
    assert measure(path, **QUICK).rows[0].latency[32].median > 0


OTHERS = {
    "other inputs": (lambda: chain((3,), L.Dense(1)), r"inputs of shapes.*\(None, [23]\)"),
    "other outputs": (lambda: chain((2,), L.Dense(4)), r"'m\.keras'.*\[\(32, 1\)\].*\(32, 4\)"),
    "more inputs": (lambda: several(["a", "b"]), "inputs of shapes"),
}


@pytest.mark.parametrize(("build", "message"), OTHERS.values(), ids=OTHERS.keys())
def test_a_file_of_another_model_than_the_reference_is_refused(tmp_path, build, message):
    path = export.keras(build(), tmp_path / "m.keras")
    with pytest.raises(ValueError, match=message):
        measure(path, linear(1, 2), **QUICK)


def test_a_file_with_a_fixed_batch_is_measured_at_that_one_only(tmp_path):
    model = linear(1, 2)
    path = export.litert(model, tmp_path / "m.tflite", batch_size=1)
    assert measure(path, model, batch_sizes=(1,), **QUICK).rows[0].difference < 1e-6
    with pytest.raises(ValueError, match=r"'m\.tflite'.*\(1, 2\).*Received.*\(32, 2\)"):
        measure(path, model, **QUICK)


# What is kept and printed ---------------------------------------------------------------


def test_the_json_holds_every_number(tmp_path):
    found = measure(pruned(), pruned(), repeats=3, batch_sizes=np.array([2, 5]), verbose=0)
    found.save(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert text == found.json() + "\n"
    kept = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert kept["about"] == found.about
    assert kept["about"]["repeats"] == 3
    (only,) = kept["rows"]
    latency = {int(n): Spread(**spread) for n, spread in only["latency"].items()}
    assert list(latency) == [2, 5]
    assert Measurement(**{**only, "latency": latency}) == found.rows[0]


def test_an_artefact_that_gives_nan_is_told_as_infinitely_far():
    found = measure(linear(math.nan, 1), linear(1, 1), **QUICK)
    assert found.rows[0].difference == math.inf
    assert json.loads(found.json())["rows"][0]["difference"] == "inf"


@pytest.mark.parametrize(("method", "ending"), [("save", ".json"), ("plot", ".png")])
def test_what_is_there_is_overwritten_only_if_asked(tmp_path, method, ending):
    write = getattr(measure(linear(1, 2), **QUICK), method)
    path = tmp_path / f"m{ending}"
    path.write_text("mine")
    with pytest.raises(ValueError, match="exists already"):
        write(path)
    assert path.read_text() == "mine"
    write(path, overwrite=True)
    assert path.stat().st_size > 100
    with pytest.raises(ValueError, match=rf"ends in '\{ending}'"):
        write(tmp_path / "m.txt")
    with pytest.raises(ValueError, match="does not exist: make it first"):
        write(tmp_path / "no" / f"m{ending}")
    assert [p.name for p in tmp_path.iterdir()] == [f"m{ending}"]


def test_silence_is_silence_and_else_the_table_is_printed(capfd):
    model = linear(1, 2)
    measure(model, **QUICK)
    assert capfd.readouterr() == ("", "")
    measure(model, repeats=1)
    out, err = capfd.readouterr()
    head, cells, about = out.splitlines()
    assert head.split()[:4] == ["density", "parameters", "MFLOPs", "bytes"]
    assert cells.split()[:6] == ["sequential", "100.0%", "2", "0.00", "-", "-"]
    assert about.startswith("median (quartiles) of 1 calls in turns; keras_lottery ")
    assert err == ""
