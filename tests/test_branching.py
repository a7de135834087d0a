"""Controls of a search: what each starts from, their seeds, and transfers."""

import numpy as np
import pytest

from keras_lottery import controls, weights
from keras_lottery.controls import Frozen
from keras_lottery.experiments import branching, setup
from keras_lottery.experiments.branching import check_branch, control, run_branch, transferred
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.plan import Task, control_names, parse_control
from keras_lottery.experiments.searching import Replicate, Start
from keras_lottery.experiments.stopping import stopped
from keras_lottery.experiments.store import Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Silent
from keras_lottery.search import SearchStoppedError

CONFIG = Config(subset=120, steps="12it", eval_every="6it", batch_size=20, rewind_to="2it")
OPTIONS = {"noise": "noise:scale=0.5", "transfer": "transfer:learning_rate=0.01"}
ROUNDS = 3


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """Compiling takes most of the time of so small a training."""
    monkeypatch.setattr(setup, "use_jit", lambda model: False)


@pytest.fixture(scope="module")
def trainer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "use_jit", lambda model: False)
        return Trainer(CONFIG)


@pytest.fixture
def replicate(trainer, tmp_path):
    found = Replicate(trainer, Store(tmp_path), 0, Silent(), 0.0)
    found.search(ROUNDS)
    return found


def spec(name):
    return OPTIONS.get(name, name)


def trained_branch(replicate, kind, seed=0, rounds=(1,)):
    run_branch(replicate, Task(0, kind, seed, rounds))
    return replicate.store.place(0, rounds[0], kind, seed)


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[p], b[p]) for p in a)


def spied(monkeypatch):
    """What is in the model when a training begins: step, weights, optimizer."""
    seen = []
    original = Trainer.train

    def train(self, start, *more):
        values = weights.read(weights.all_weights(self.model))
        slots = [v.numpy() for v in self.model.optimizer.variables]
        seen.append((start.snapshot.step, values, slots))
        return original(self, start, *more)

    monkeypatch.setattr(Trainer, "train", train)
    return seen


def tickets_equal(a, b):
    return same(a.masks, b.masks) and same(a.weights, b.weights)


@pytest.mark.parametrize("name", control_names())
def test_every_control_trains_and_its_files_are_read_back(replicate, monkeypatch, name):
    seen = spied(monkeypatch)
    round = 0 if name == "dense" else 1
    place = trained_branch(replicate, spec(name), rounds=(round,))
    record, ticket = place.record(), type(replicate.ticket(0)).load(place.ticket)
    first = 0 if name in ("dense", "transfer") else 2
    assert (record["kind"], record["round"], record["first_step"]) == (spec(name), round, first)
    step, values, _ = seen[-1]
    assert step == first
    for path, mask in ticket.masks.items():
        assert np.array_equal(np.where(mask, values[path], 0), ticket.weights[path])
    trained = type(ticket).load(place.trained)
    assert same(trained.masks, ticket.masks)
    assert not same(trained.weights, ticket.weights)


@pytest.mark.parametrize("name", sorted({*controls.NAMED, *controls.FREEZING}))
def test_a_control_of_the_package_trains_what_it_makes(replicate, monkeypatch, name):
    seen = spied(monkeypatch)
    place = trained_branch(replicate, spec(name))
    made = control(replicate, *parse_control(spec(name)), 1, 0)
    plain = made.ticket if isinstance(made, Frozen) else made
    assert tickets_equal(type(plain).load(place.ticket), plain)
    made.apply(replicate.trainer.model)
    applied = weights.read(weights.all_weights(replicate.trainer.model))
    assert same(applied, seen[-1][1])


def test_reinitialize_keeps_the_masks_and_draws_other_weights(replicate):
    ticket, made = replicate.ticket(1), control(replicate, "reinitialize", {}, 1, 0)
    assert same(made.masks, ticket.masks)
    for path, mask in made.masks.items():
        assert not np.array_equal(made.weights[path], ticket.weights[path])
        assert not made.weights[path][~mask].any()


@pytest.mark.parametrize("name", ["random_mask", "shuffle_mask", "one_shot"])
def test_a_control_of_masks_keeps_the_count_and_the_values_of_the_rewind_point(replicate, name):
    ticket, made = replicate.ticket(2), control(replicate, name, {}, 2, 0)
    rewind = replicate.rewind_point().variables
    for path, mask in made.masks.items():
        assert mask.sum() == ticket.masks[path].sum()
        assert not np.array_equal(mask, ticket.masks[path])
        if name != "shuffle_mask":
            assert np.array_equal(made.weights[path], np.where(mask, rewind[path], 0))


def test_one_shot_prunes_by_the_dense_training(replicate):
    made, trained = control(replicate, "one_shot", {}, 2, 0), replicate.trained(0)
    for path, mask in made.masks.items():
        size = np.abs(trained.weights[path])
        assert size[mask].min() >= size[~mask].max()


def test_the_dense_control_is_another_whole_network_from_step_0(replicate):
    place = trained_branch(replicate, "dense", rounds=(0,))
    ticket, own = type(replicate.ticket(0)).load(place.ticket), replicate.ticket(0)
    assert ticket.density == 1 and place.record()["steps"] == 12
    assert not any(same({0: ticket.weights[p]}, {0: own.weights[p]}) for p in own.masks)


def test_a_ticket_at_a_rewind_point_starts_with_its_optimizer(replicate, monkeypatch):
    seen = spied(monkeypatch)
    trained_branch(replicate, "reinitialize")
    rewind = replicate.rewind_point().optimizer
    assert int(seen[-1][2][0]) == int(rewind[0]) == 2


def test_continued_training_prunes_without_ever_resetting(replicate, monkeypatch):
    seen = spied(monkeypatch)
    place = trained_branch(replicate, "continued_training", rounds=(2,))
    chain, last = seen[-2], seen[-1]
    first_masks = {p: chain[1][p] != 0 for p in replicate.ticket(0).masks}
    dense = replicate.trained(0).weights
    for path, mask in first_masks.items():
        assert np.array_equal(chain[1][path], np.where(mask, dense[path], 0))
    made, rewind = type(replicate.ticket(0)).load(place.ticket), replicate.rewind_point()
    for path, mask in made.masks.items():
        assert np.array_equal(last[1][path], np.where(mask, rewind.variables[path], 0))
        assert mask.sum() == replicate.ticket(2).masks[path].sum()
        assert not (mask & ~first_masks[path]).any()
    assert (chain[0], last[0], len(seen)) == (2, 2, 2)


def test_continued_training_trains_each_of_its_rounds_once(replicate, monkeypatch):
    seen = spied(monkeypatch)
    trained_branch(replicate, "continued_training", rounds=(1, 2))
    assert len(seen) == 3


def test_the_same_seed_draws_the_same_ticket_and_another_draws_another(replicate, tmp_path):
    one, two = (control(replicate, "reinitialize", {}, 1, seed) for seed in (0, 1))
    assert tickets_equal(one, control(replicate, "reinitialize", {}, 1, 0))
    assert not same(one.weights, two.weights)
    before = trained_branch(replicate, "reinitialize", seed=1)
    other = Replicate(replicate.trainer, Store(tmp_path / "again"), 0, Silent(), 0.0)
    other.search(ROUNDS)
    after = trained_branch(other, "reinitialize", seed=1)
    assert before.ticket.read_bytes() == after.ticket.read_bytes()
    assert before.trained.read_bytes() == after.trained.read_bytes()


def test_rounds_that_the_search_has_not_are_left_out(replicate):
    run_branch(replicate, Task(0, "random_mask", 0, (2, 7)))
    folder = replicate.store.branch(0, "random_mask", 0)
    assert [p.name for p in folder.iterdir()] == ["round_02"]


def test_a_control_that_diverges_stops_and_says_so_again(replicate, monkeypatch):
    kind = "noise:scale=1e38"
    with pytest.raises(SearchStoppedError, match="round 1: NaN or Inf"), np.errstate(all="ignore"):
        trained_branch(replicate, kind, rounds=(1, 2))
    assert stopped(replicate.store.branch(0, kind, 0))["round"] == 1
    seen = spied(monkeypatch)
    with pytest.raises(SearchStoppedError, match="round 1: NaN or Inf"):
        trained_branch(replicate, kind, rounds=(1, 2))
    assert seen == []


def test_a_transfer_trains_the_ticket_with_another_optimizer(replicate, monkeypatch):
    seen = spied(monkeypatch)
    kind = "transfer:optimizer=sgd:learning_rate=0.05"
    place = trained_branch(replicate, kind)
    assert tickets_equal(type(replicate.ticket(1)).load(place.ticket), replicate.ticket(1))
    step, values, slots = seen[-1]
    assert step == 0 and same(values, replicate.ticket(1).weights)
    assert [float(v) for v in slots] == [0.0, pytest.approx(0.05)]
    assert place.record()["steps"] == 12


def npz(path, side=8, classes=10):
    rng = np.random.default_rng(0)
    labels = np.arange(90) % classes
    images = rng.normal(labels[:, None, None], 1.0, (90, side, side)).astype("float32")
    np.savez(path, x_train=images, y_train=labels, x_test=images[:30], y_test=labels[:30])
    return path


def test_a_transfer_trains_the_ticket_on_other_data(replicate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npz("other.npz")
    kind = "transfer:dataset=other.npz:subset=60"
    place = trained_branch(replicate, kind)
    other = transferred(CONFIG, kind, None)
    assert other.data.name != replicate.trainer.data.name
    assert len(other.data.train[0]) == 60
    assert tickets_equal(type(replicate.ticket(1)).load(place.ticket), replicate.ticket(1))
    trained = type(replicate.ticket(1)).load(place.trained)
    assert same(trained.masks, replicate.ticket(1).masks)
    check_branch(replicate.trainer, kind, None)


@pytest.mark.parametrize(("side", "classes"), [(9, 10), (8, 7)])
def test_a_transfer_to_data_of_another_shape_is_refused(trainer, tmp_path, side, classes):
    path = npz(tmp_path / "wide.npz", side, classes)
    kind = f"transfer:dataset={path}:subset=60"
    with pytest.raises(ValueError, match=r"transfer:dataset=.*Expected: .*Received: ") as error:
        check_branch(trainer, kind, None)
    assert "(64, 300)" in str(error.value)


def test_a_control_that_is_no_transfer_needs_no_other_trainer(trainer):
    assert transferred(CONFIG, "noise:scale=0.5", None) is None
    check_branch(trainer, "noise:scale=0.5", None)


@pytest.mark.parametrize("kind", ["noise:scale=-1", "noise:scale=1e999"])
def test_an_option_out_of_range_is_refused_before_the_search(trainer, kind):
    with pytest.raises(ValueError, match=f"The control '{kind}' cannot be made: .*scale"):
        check_branch(trainer, kind, None)


@pytest.mark.parametrize("kind", sorted({*branching.NAMED} - {"noise"}))
def test_every_control_passes_its_check(trainer, kind):
    assert check_branch(trainer, kind, None) is None


def test_a_start_with_frozen_values_knows_its_plain_ticket(replicate):
    frozen = control(replicate, "freeze_init", {}, 1, 0)
    start = Start(frozen, replicate.rewind_point(), 12)
    assert start.plain is frozen.ticket
    assert Start(frozen.ticket, replicate.rewind_point(), 12).plain is frozen.ticket


def test_seeds_of_controls_differ_by_replicate_seed_and_round():
    seeds = {branching._seed(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27
