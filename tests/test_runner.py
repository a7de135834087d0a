"""A run in a folder: what it trains, what it leaves behind, what stops it."""

import importlib.util
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import image

from keras_lottery import Ticket
from keras_lottery.experiments import datasets, feeding, runner
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.store import Store, free_folder

FILES = {"config.json", "metrics.jsonl", "report.html", "accuracy.png"}


# Models of the runs: they write down what each `fit` started from and ended with ----------

SEEN = {"fits": [], "models": [], "plan": {}}


class Watched(keras.Sequential):
    """Notes weights and steps of each fit; `SEEN["plan"]` maps a fit's index to a callback."""

    def fit(self, *args, callbacks=(), **kwargs):
        fits = SEEN["fits"]
        extra = SEEN["plan"].get(len(fits))
        note = {"start": self.get_weights(), "first_step": int(self.optimizer.iterations)}
        note["slots"] = [v.numpy() for v in self.optimizer.variables[2:]]
        note["learning_rate"] = float(self.optimizer.learning_rate)
        fits.append(note)
        history = super().fit(*args, callbacks=[*callbacks, *([extra] if extra else [])], **kwargs)
        note |= {"end": self.get_weights(), "last_step": int(self.optimizer.iterations)}
        return history


def tiny(shape, classes):
    """160 weights, then 10 for each class."""
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(10, "relu")]
    SEEN["models"].append(Watched([*layers, keras.layers.Dense(classes)]))
    return SEEN["models"][-1]


def normalized(shape, classes):
    return keras.Sequential(
        [
            keras.Input(shape),
            keras.layers.Conv2D(3, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(classes),
        ]
    )


def no_model(shape, classes):
    return None


def too_few_outputs(shape, classes):
    return tiny(shape, classes - 1)


def unbuilt(shape, classes):
    return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(classes)])


def without_kernels(shape, classes):
    return keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.BatchNormalization()]
    )


class Do(keras.callbacks.Callback):
    """Calls `action(model)` at the end of an epoch."""

    def __init__(self, action, epoch=0):
        super().__init__()
        self.action, self.epoch = action, epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.action(self.model)


def interrupt(model):
    raise KeyboardInterrupt


def go_nan(model):
    model.layers[-1].kernel.assign(model.layers[-1].kernel * np.nan)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    """120 training and 40 test images of 4x4 in three classes that can be told apart."""
    rng = np.random.default_rng(0)
    y = np.arange(160) % 3
    x = rng.normal(100, 30, (160, 4, 4)) + 40 * (
        np.arange(16).reshape(4, 4) % 3 == y[:, None, None]
    )
    x = np.clip(x, 0, 255).astype(np.uint8)
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    return str(path)


@pytest.fixture
def run(data_file, tmp_path):
    """Runs into `tmp_path/run` with tiny settings, some of them changed."""
    SEEN.update(fits=[], models=[], plan={})

    def start(folder="run", plan=None, **changes):
        SEEN.update(fits=[], models=[], plan=plan or {})
        return runner.run(config(data_file, **changes), str(tmp_path / folder), Live(quiet=True))

    return start


def config(data_file, **changes):
    small = {"rounds": 2, "epochs": 2, "batch_size": 12, "prune_fraction": 0.5}
    small |= {"dataset": data_file, "model": f"{__name__}:tiny", "output_fraction": 0.2}
    if changes.get("scope", "layerwise") != "layerwise":
        del small["output_fraction"]
    return runner.Config(**{**small, **changes})


@pytest.fixture(scope="module")
def finished(data_file, tmp_path_factory):
    """Three rounds with all three controls: the store, the fits, the model."""
    SEEN.update(fits=[], models=[], plan={})
    folder = tmp_path_factory.mktemp("runs") / "deep" / "run"
    controls = ("reinitialize", "random_mask", "shuffle_mask")
    done = config(data_file, rounds=3, controls=controls)
    store = runner.run(done, str(folder), Live(quiet=True))
    return store, list(SEEN["fits"]), SEEN["models"][-1]


def tickets(store):
    paths = sorted(store.folder.glob("ticket_*.safetensors"))
    return [Ticket.load(p) for p in paths]


def without_seconds(store):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in store.records()]


# Small parts ----------------------------------------------------------------------------


def test_steps_are_iterations_or_epochs():
    assert runner.parse_steps("0it", 20) == 0
    assert runner.parse_steps("500it", 20) == 500
    assert runner.parse_steps("2ep", 20) == 40
    assert runner.parse_steps("0ep", 20) == 0


@pytest.mark.parametrize(
    "text", ["", "5", "it", "ep", "-1it", "1.5ep", "5 it", "5it\n", "5IT", "5steps", "it5", " 5it"]
)
def test_anything_else_than_steps_is_an_error_that_says_how_to_write_them(text):
    with pytest.raises(ValueError, match=r"500it.*2ep"):
        runner.parse_steps(text, 20)


@given(st.integers(1, 3000), st.integers(0, 9000), st.integers(1, 120))
def test_steps_per_execution_is_the_largest_that_divides_both(batches, k, most):
    n = runner.steps_per_execution(batches, k, most)
    assert 1 <= n <= most
    assert batches % n == 0
    assert k % n == 0
    assert not any(batches % m == 0 and k % m == 0 for m in range(n + 1, most + 1))


def epochs_of(seed, n=10, batch_size=3, count=3):
    data = feeding.batches((np.arange(n) * 2, np.arange(n)), batch_size, seed)
    found = []
    for _ in range(count):
        pairs = [(x.numpy(), y.numpy()) for x, y in data]
        assert all(len(x) == len(y) == batch_size for x, y in pairs)
        assert all(np.array_equal(x, 2 * y) for x, y in pairs)
        found.append(np.concatenate([y for _, y in pairs]).tolist())
    return found


def test_batches_are_whole_and_draw_each_image_at_most_once_an_epoch():
    for epoch in epochs_of(seed=1):
        assert len(epoch) == len(set(epoch)) == 9


def test_the_order_of_batches_is_a_function_of_the_seed_and_new_each_epoch():
    one, again, other = epochs_of(1, n=40), epochs_of(1, n=40), epochs_of(2, n=40)
    assert one == again
    assert one[0] != one[1] != one[2] != one[0]
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_every_training_image_is_used_over_the_epochs():
    assert {image for epoch in epochs_of(0, count=20) for image in epoch} == set(range(10))


@pytest.mark.parametrize("name", runner.OPTIMIZERS)
def test_every_optimizer_has_the_learning_rate_asked_for(name):
    optimizer = runner.make_optimizer(name, 0.25)
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert float(optimizer.learning_rate) == 0.25
    kind = "sgd" if name == "momentum" else name
    assert type(optimizer).__name__.lower() == kind


def test_momentum_is_sgd_with_momentum_and_sgd_is_without():
    assert runner.make_optimizer("momentum", 0.1).momentum == 0.9
    assert runner.make_optimizer("sgd", 0.1).momentum == 0


def test_an_unknown_optimizer_lists_the_valid_ones():
    with pytest.raises(ValueError, match=r"adam.*momentum.*muon.*'adamm'"):
        runner.make_optimizer("adamm", 0.1)


def test_the_first_free_folder_is_a_new_one(tmp_path):
    first = free_folder(str(tmp_path / "runs"), "digits-lenet")
    assert first == tmp_path / "runs" / "digits-lenet-1"
    first.mkdir(parents=True)
    assert free_folder(str(tmp_path / "runs"), "digits-lenet").name == "digits-lenet-2"
    (tmp_path / "runs" / "digits-lenet-2").write_text("a file is in the way too")
    assert free_folder(str(tmp_path / "runs"), "digits-lenet").name == "digits-lenet-3"


def round_files(*rounds):
    return {f"{kind}_{r:02d}.safetensors" for kind in ("ticket", "trained") for r in rounds}


# What a run leaves ----------------------------------------------------------------------


def test_a_run_leaves_its_config_metrics_report_picture_and_a_ticket_a_round(finished):
    store = finished[0]
    expected = FILES | round_files(0, 1, 2)
    assert {p.name for p in store.folder.iterdir()} == expected


def test_the_trained_weights_are_of_the_tickets_masks_and_name_their_model(finished):
    store = finished[0]
    for r in range(3):
        ticket, trained = Ticket.load(store.ticket_path(r)), Ticket.load(store.trained_path(r))
        assert trained.metadata["weights"] == "trained"
        assert trained.metadata["model"] == ticket.metadata["model"]
        for path, mask in ticket.masks.items():
            np.testing.assert_array_equal(trained.masks[path], mask)
            assert (trained.weights[path] != ticket.weights[path]).any()


def test_the_config_holds_every_setting_and_the_versions(finished, data_file):
    found = json.loads((finished[0].folder / "config.json").read_text())
    asked = {
        "dataset": data_file,
        "model": f"{__name__}:tiny",
        "rounds": 3,
        "epochs": 2,
        "batch_size": 12,
        "optimizer": "adam",
        "learning_rate": 1.2e-3,
        "prune_fraction": 0.5,
        "output_fraction": 0.2,
        "scope": "layerwise",
        "criterion": "magnitude",
        "rewind": "weights",
        "rewind_to": "0it",
        "controls": ["reinitialize", "random_mask", "shuffle_mask"],
        "seed": 0,
    }
    assert {k: found[k] for k in asked} == asked
    assert found["sizes"] == {"train": 108, "validation": 12, "test": 40}
    assert (found["steps_per_epoch"], found["rewind_steps"]) == (9, 0)
    assert found["parameters"] == 16 * 10 + 10 + 10 * 3 + 3
    assert found["versions"]["keras"] == keras.__version__
    assert found["versions"]["tensorflow"] == tf.__version__
    assert {"keras_lottery", "numpy", "python"} <= set(found["versions"])


def test_there_is_one_line_of_metrics_for_each_training_in_order(finished):
    lines = (finished[0].folder / "metrics.jsonl").read_text().splitlines()
    found = [(r["kind"], r["round"]) for r in map(json.loads, lines)]
    rounds = [("ticket", r) for r in range(3)]
    controls = [(c, r) for c in ("reinitialize", "random_mask", "shuffle_mask") for r in (1, 2)]
    assert found == rounds + controls


def test_densities_are_the_counts_of_the_rates(finished):
    # 160 hidden weights lose half, 30 output weights a fifth: 80 + 24, then 40 + 19, of 190.
    by_round = {0: 1.0, 1: 104 / 190, 2: 59 / 190}
    for record in finished[0].records():
        assert record["density"] == pytest.approx(by_round[record["round"]], abs=1e-12)


def test_the_early_stop_is_the_epoch_of_least_validation_loss(finished):
    for record in finished[0].records():
        curve = record["curve"]
        best = int(np.argmin(curve["val_loss"]))
        assert len(curve["val_loss"]) == len(curve["loss"]) == 2
        assert record["early_stop_epoch"] == best + 1
        assert record["early_stop_test_accuracy"] == pytest.approx(
            curve["test_accuracy"][best], abs=1e-5
        )
        assert record["test_accuracy"] == pytest.approx(curve["test_accuracy"][-1], abs=1e-5)
        assert record["val_accuracy"] == pytest.approx(curve["val_accuracy"][-1], abs=1e-5)
        assert record["seconds"] > 0


def test_each_ticket_has_the_initial_weights_and_the_masks_of_its_round(finished):
    store, fits, _ = finished
    found = tickets(store)
    assert [t.density for t in found] == [1.0, 104 / 190, 59 / 190]
    initial = fits[0]["start"]
    for ticket, fit in zip(found, fits, strict=False):
        for value, start, first in zip(ticket.weights.values(), fit["start"], initial, strict=True):
            assert np.array_equal(value, start)
            assert np.array_equal(value[value != 0], first[value != 0])
    for path, small in found[2].masks.items():
        assert not (small & ~found[1].masks[path]).any()


def test_a_ticket_of_a_run_loads_applies_and_stays_sparse_in_training(finished, data_file):
    ticket = tickets(finished[0])[2]
    data = datasets.load(data_file)
    model = tiny((4, 4, 1), 3)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ticket.apply(model)
    model.fit(*data.train, batch_size=12, epochs=1, verbose=0)
    for mask, kernel in zip(ticket.masks.values(), kernels(model.get_weights()), strict=True):
        assert np.array_equal(kernel != 0, mask)


def test_a_ticket_says_where_it_came_from(finished):
    store = finished[0]
    about = tickets(store)[1].metadata
    assert (about["round"], about["rewind"], about["rewind_steps"], about["seed"]) == (
        1,
        "weights",
        0,
        0,
    )
    assert about["densities"] == [1.0, 104 / 190]
    assert about["criterion"] == "magnitude"
    assert about["versions"]["keras"] == keras.__version__


def test_the_metrics_of_a_ticket_are_those_of_its_round(finished):
    store = finished[0]
    for ticket, record in zip(tickets(store), store.records(), strict=False):
        found = ticket.metadata["metrics"]
        for name in ("loss", "val_loss", "val_accuracy", "test_accuracy"):
            assert found[name] == pytest.approx(record["curve"][name][-1], rel=1e-4)


def test_every_training_starts_with_a_fresh_optimizer_and_trains_all_steps(finished):
    for fit in finished[1]:
        assert (fit["first_step"], fit["last_step"]) == (0, 18)
        assert not any(np.any(slot) for slot in fit["slots"])
        assert fit["learning_rate"] == pytest.approx(1.2e-3)


def kernels(values):
    return values[0], values[2]


def test_every_trained_network_is_as_sparse_as_its_record_says(finished):
    store, fits, _ = finished
    alive = {0: (160, 30), 1: (80, 24), 2: (40, 19)}
    for fit, record in zip(fits, store.records(), strict=True):
        found = tuple(int(np.count_nonzero(k)) for k in kernels(fit["end"]))
        assert found == alive[record["round"]], record["kind"]
        for start, end in zip(kernels(fit["start"]), kernels(fit["end"]), strict=True):
            assert np.array_equal(start != 0, end != 0)


def test_reinitialized_controls_have_the_tickets_masks_and_other_weights(finished):
    store, fits, _ = finished
    for round, fit in ((1, fits[3]), (2, fits[4])):
        ticket = tickets(store)[round]
        for mask, old, new in zip(
            ticket.masks.values(), kernels(fits[round]["start"]), kernels(fit["start"]), strict=True
        ):
            assert np.array_equal(new != 0, mask)
            assert not np.any(new[mask] == old[mask])


@pytest.mark.parametrize("first", [5, 7], ids=["random_mask", "shuffle_mask"])
def test_mask_controls_keep_the_initial_weights_at_other_places(finished, first):
    _, fits, _ = finished
    for round, fit in ((1, fits[first]), (2, fits[first + 1])):
        for initial, ticket, new in zip(
            kernels(fits[0]["start"]),
            kernels(fits[round]["start"]),
            kernels(fit["start"]),
            strict=True,
        ):
            assert np.array_equal(new[new != 0], initial[new != 0])
            assert not np.array_equal(new != 0, ticket != 0)


def test_the_picture_is_a_png_and_the_same_as_in_the_report(finished):
    import base64

    folder = finished[0].folder
    content = (folder / "accuracy.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(folder / "accuracy.png")
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0
    assert base64.b64encode(content).decode() in (folder / "report.html").read_text()


def test_the_recorded_numbers_are_those_of_the_model(finished, data_file):
    store, _, model = finished
    data, record = datasets.load(data_file), store.records()[-1]
    parts = {"val": data.validation, "test": data.test}
    for name, (x, y) in parts.items():
        loss = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
        right = (model.predict(x, verbose=0).argmax(-1) == y).mean()
        assert record["curve"][f"{name}_loss"][-1] == pytest.approx(loss, rel=1e-4)
        assert record["curve"][f"{name}_accuracy"][-1] == pytest.approx(right, abs=1e-5)


def test_numbers_are_right_for_parts_of_many_batches(tmp_path, run):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(57_001, 2, 2, 1)).astype(np.float32), rng.integers(0, 3, 57_001)
    path = tmp_path / "many.npz"
    np.savez(path, x_train=x[:50_000], y_train=y[:50_000], x_test=x[50_000:], y_test=y[50_000:])
    store = run(dataset=str(path), rounds=1, epochs=1, batch_size=5000)
    data, model, (record,) = datasets.load(str(path)), SEEN["models"][0], store.records()
    assert store.config()["sizes"] == {"train": 45_000, "validation": 5000, "test": 7001}
    for name, part in {"val": data.validation, "test": data.test}.items():
        loss = model.evaluate(*part, batch_size=7001, verbose=0)
        right = (model.predict(part[0], batch_size=7001, verbose=0).argmax(-1) == part[1]).mean()
        assert record["curve"][f"{name}_loss"] == [pytest.approx(loss, rel=1e-4)]
        assert record["curve"][f"{name}_accuracy"] == [pytest.approx(right, abs=1e-5)]


def test_the_same_seed_gives_the_same_run_bit_for_bit_and_another_seed_another(finished, run):
    controls = ("reinitialize", "random_mask", "shuffle_mask")
    again = run("again", rounds=3, controls=controls)
    one, two = without_seconds(finished[0]), without_seconds(again)
    assert json.dumps(one) == json.dumps(two)
    for a, b in zip(tickets(finished[0]), tickets(again), strict=True):
        assert [v.tobytes() for v in a.weights.values()] == [
            v.tobytes() for v in b.weights.values()
        ]
        assert [m.tobytes() for m in a.masks.values()] == [m.tobytes() for m in b.masks.values()]
    other = run("other", rounds=1, seed=1)
    assert other.records()[0]["curve"]["loss"] != one[0]["curve"]["loss"]
    assert other.records()[0]["seed"] == 1


def test_the_digits_run_by_default_with_lenet_and_half_the_rate_at_the_output(run):
    store = run(
        dataset="digits",
        model="lenet_300_100",
        epochs=1,
        prune_fraction=0.2,
        output_fraction=None,
        batch_size=584,
    )
    # 19,200 + 30,000 + 1,000 weights; a fifth, a fifth and a tenth go.
    assert [r["density"] for r in store.records()] == [1.0, pytest.approx(40_260 / 50_200)]
    assert store.config()["output_fraction"] == 0.1


# Rewinding ------------------------------------------------------------------------------


def test_rewinding_into_an_epoch_trains_the_steps_from_k_to_the_end(run):
    store = run(rewind_to="4it", rounds=3)
    assert [(f["first_step"], f["last_step"]) for f in SEEN["fits"]] == [(0, 18), (4, 18), (4, 18)]
    assert store.config()["rewind_steps"] == 4
    assert [len(r["curve"]["loss"]) for r in store.records()] == [2, 2, 2]
    check_tickets_share_the_rewind_point(store)


def test_rewinding_to_an_epochs_end_trains_the_other_epochs(run):
    store = run(rewind_to="1ep", controls=("reinitialize",))
    assert [(f["first_step"], f["last_step"]) for f in SEEN["fits"]] == [(0, 18), (9, 18), (9, 18)]
    assert store.config()["rewind_steps"] == 9
    assert [len(r["curve"]["loss"]) for r in store.records()] == [2, 1, 1]
    check_tickets_share_the_rewind_point(store)


def check_tickets_share_the_rewind_point(store):
    """All tickets hold the weights of step k: neither the initial nor the trained ones."""
    found = tickets(store)
    for round, ticket in enumerate(found):
        for i, (value, dense) in enumerate(
            zip(ticket.weights.values(), found[0].weights.values(), strict=True)
        ):
            assert np.array_equal(value[value != 0], dense[value != 0])
            if round:
                assert np.array_equal(value, SEEN["fits"][round]["start"][i])
    first = next(iter(found[0].weights.values()))
    assert not np.array_equal(first, SEEN["fits"][0]["start"][0])
    assert not np.array_equal(first, SEEN["fits"][0]["end"][0])


@pytest.mark.parametrize(("rewind", "steps"), [("learning_rate", (0, 18)), ("none", (18, 36))])
def test_without_rewinding_weights_a_round_goes_on_from_the_trained_ones(run, rewind, steps):
    store = run(rewind=rewind)
    dense, sparse = SEEN["fits"]
    assert (sparse["first_step"], sparse["last_step"]) == steps
    ticket = tickets(store)[1]
    for value, trained, start in zip(
        ticket.weights.values(), dense["end"], sparse["start"], strict=True
    ):
        assert np.array_equal(value, start)
        assert np.array_equal(start[start != 0], trained[start != 0])
    assert [r["density"] for r in store.records()] == [1.0, 104 / 190]


# Models and criteria --------------------------------------------------------------------


def test_a_model_with_batch_normalization_runs_with_a_reinitialized_control(run):
    store = run(model=f"{__name__}:normalized", scope="erk", controls=("reinitialize",))
    assert [r["kind"] for r in store.records()] == ["ticket", "ticket", "reinitialize"]
    ticket = tickets(store)[1]
    assert [m.shape for m in ticket.masks.values()] == [(3, 3, 1, 3), (12, 3)]
    mean, variance = (
        next(v for p, v in ticket.weights.items() if p.endswith(name))
        for name in ("moving_mean", "moving_variance")
    )
    assert not mean.any()
    assert (variance == 1).all()


def test_a_criterion_of_gradients_works_in_a_run(run):
    store = run(criterion="snip", scope="global", epochs=1)
    assert [r["density"] for r in store.records()] == [1.0, 95 / 190]
    assert tickets(store)[1].metadata["criterion"] == "snip"


# What stops a run -----------------------------------------------------------------------


def test_an_interrupt_keeps_the_finished_rounds_with_a_report_and_goes_on_up(run, tmp_path):
    with (
        pytest.warns(RuntimeWarning, match="interrupted"),
        pytest.raises(KeyboardInterrupt),
    ):
        run(rounds=3, plan={1: Do(interrupt)}, controls=("reinitialize",))
    store = Store(tmp_path / "run")
    assert [(r["kind"], r["round"]) for r in store.records()] == [("ticket", 0)]
    assert {p.name for p in store.folder.iterdir()} == FILES | round_files(0)
    assert tickets(store)[0].density == 1
    assert len(SEEN["fits"]) == 2  # nothing more is trained, no control either


def test_an_interrupt_in_a_control_keeps_the_tickets_and_the_controls_before(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(epochs=1, plan={3: Do(interrupt)}, controls=("reinitialize", "random_mask"))
    store = Store(tmp_path / "run")
    found = [(r["kind"], r["round"]) for r in store.records()]
    assert found == [("ticket", 0), ("ticket", 1), ("reinitialize", 1)]
    assert {p.name for p in store.folder.iterdir()} >= FILES


def test_an_interrupt_in_the_first_round_leaves_no_half_report(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(plan={0: Do(interrupt)}, epochs=None)
    store = Store(tmp_path / "run")
    assert store.records() == []
    assert [p.name for p in store.folder.iterdir()] == ["config.json"]
    assert store.config()["epochs"] == math.ceil(50_000 / 9)  # the paper's steps


def test_an_error_in_training_keeps_the_finished_rounds_with_a_report(run, tmp_path):
    def fail(model):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run(plan={1: Do(fail)})
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES | round_files(0)


def test_a_round_that_goes_nan_stops_the_run_and_keeps_the_rounds_before(run):
    with pytest.warns(RuntimeWarning, match="NaN or Inf in the weights.*round 1"):
        store = run(rounds=3, plan={1: Do(go_nan, epoch=1)}, controls=("reinitialize",))
    assert [(r["kind"], r["round"]) for r in store.records()] == [("ticket", 0)]
    assert {p.name for p in store.folder.iterdir()} == FILES | round_files(0)


@pytest.fixture(scope="module")
def diverged(data_file, tmp_path_factory):
    """A run whose control has a good first epoch and is NaN from then on."""
    SEEN.update(fits=[], models=[], plan={2: Do(go_nan)})
    folder = tmp_path_factory.mktemp("runs") / "run"
    done = config(data_file, controls=("reinitialize",))
    return runner.run(done, str(folder), Live(quiet=True))


def test_the_early_stop_of_a_control_that_goes_nan_is_its_best_epoch_before(diverged):
    record = diverged.records()[-1]
    assert (record["kind"], record["early_stop_epoch"]) == ("reinitialize", 1)
    assert record["early_stop_test_accuracy"] == pytest.approx(record["curve"]["test_accuracy"][0])
    assert {p.name for p in diverged.folder.iterdir()} >= FILES


def test_metrics_are_json_even_if_a_control_goes_nan(diverged):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    for line in (diverged.folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_folder_with_a_run_is_an_error_and_nothing_in_it_changes(finished, run):
    folder = finished[0].folder
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(ValueError, match="already holds a run"):
        run(str(folder), seed=1)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert SEEN["fits"] == []


def test_a_folder_that_cannot_be_written_is_an_error_before_training(run, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ValueError, match="run"):
        run()
    assert (tmp_path / "run").read_text() == "a file"
    assert SEEN["fits"] == []


@pytest.mark.parametrize("name", ["matplotlib", "jinja2"])
def test_a_missing_plot_library_names_the_extra_before_anything_is_trained(
    run, tmp_path, monkeypatch, name
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == name else find(n, *a)
    )
    with pytest.raises(ImportError, match=rf"{name}.*keras-lottery\[plots\]"):
        run()
    assert SEEN["models"] == []
    assert not (tmp_path / "run").exists()


BAD = {
    "rounds": ({"rounds": 0}, "rounds"),
    "negative rounds": ({"rounds": -1}, "rounds"),
    "epochs": ({"epochs": 0}, "epochs"),
    "batch_size": ({"batch_size": 0}, "batch_size"),
    "a batch of more than all images": ({"batch_size": 109}, "109.*108"),
    "prune_fraction 0": ({"prune_fraction": 0.0}, "prune_fraction"),
    "prune_fraction 1": ({"prune_fraction": 1.0}, "prune_fraction"),
    "prune_fraction 1.5": ({"prune_fraction": 1.5}, "prune_fraction"),
    "prune_fraction NaN": ({"prune_fraction": math.nan}, "prune_fraction"),
    "output_fraction": ({"output_fraction": 1.0}, "output_fraction"),
    "output_fraction of another scope": (
        {"output_fraction": 0.1, "scope": "global"},
        "output_fraction",
    ),
    "criterion": ({"criterion": "size"}, "criterion.*magnitude.*size"),
    "scope": ({"scope": "everywhere"}, "scope.*layerwise.*everywhere"),
    "rewind": ({"rewind": "back"}, "rewind.*learning_rate.*back"),
    "rewind_to": ({"rewind_to": "5"}, "500it.*2ep.*'5'"),
    "a rewind point at the end": ({"rewind_to": "2ep"}, "(?i)rewind"),
    "a rewind point beyond the end": ({"rewind_to": "19it"}, "(?i)rewind"),
    "a rewind point without rewinding": ({"rewind_to": "5it", "rewind": "none"}, "(?i)rewind"),
    "optimizer": ({"optimizer": "newton"}, "optimizer.*adam.*newton"),
    "learning_rate 0": ({"learning_rate": 0.0}, "learning_rate"),
    "learning_rate NaN": ({"learning_rate": math.nan}, "learning_rate"),
    "learning_rate Inf": ({"learning_rate": math.inf}, "learning_rate"),
    "controls": ({"controls": ("reinit",)}, r"reinit.*random_mask.*reinitialize.*shuffle_mask"),
    "dataset": ({"dataset": "mnist9"}, "mnist9.*digits"),
    "model": ({"model": "lenet5"}, "lenet5.*lenet_300_100"),
    "a function that returns no model": ({"model": f"{__name__}:no_model"}, "no_model"),
    "a model of fewer outputs than classes": (
        {"model": f"{__name__}:too_few_outputs"},
        "too_few_outputs|classes|outputs",
    ),
    "a model that is not built": ({"model": f"{__name__}:unbuilt"}, "built"),
    "a model without kernels": ({"model": f"{__name__}:without_kernels"}, "prun"),
    "seed": ({"seed": -1}, "(?i)seed"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD.keys())
def test_settings_that_cannot_work_are_an_error_before_anything_is_trained_or_written(
    run, tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        run(**changes)
    assert SEEN["fits"] == []
    assert not (tmp_path / "run").exists()
