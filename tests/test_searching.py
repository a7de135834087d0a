"""A replicate's search in its folder: its rounds, rewinding, stopping, and what the files hold."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_lottery as kl
from keras_lottery import weights
from keras_lottery.experiments import setup
from keras_lottery.experiments.batches import batches
from keras_lottery.experiments.checkpoints import Progress, load
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.plan import Task
from keras_lottery.experiments.searching import Replicate, _seed
from keras_lottery.experiments.stopping import STOPPED, as_stop, stopped, stopping
from keras_lottery.experiments.store import TICKET, Store
from keras_lottery.experiments.training import Trainer
from keras_lottery.experiments.watching import Silent
from keras_lottery.experiments.work import Job
from keras_lottery.search import SearchStoppedError

SMALL = {"subset": 120, "steps": "12it", "eval_every": "4it", "batch_size": 20}
TRAINERS = {}


class Listener(Silent):
    """Keeps what a search tells."""

    def __init__(self):
        self.said, self.rows, self.steps = [], [], 0

    def say(self, text):
        self.said.append(text)

    def row(self, record):
        self.rows.append(record)

    def advance(self, steps, numbers):
        self.steps += steps


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """Compiling takes most of the time of so small a search."""
    monkeypatch.setattr(setup, "use_jit", lambda model: False)


def trainer(**settings):
    """One trainer for each set of settings."""
    key = tuple(sorted(settings.items()))
    if key not in TRAINERS:
        TRAINERS[key] = Trainer(Config(**SMALL, **settings))
    return TRAINERS[key]


def searched(folder, rounds, watch=None, **settings):
    found = Replicate(trainer(**settings), Store(folder), 0, watch or Silent(), 0.0)
    found.search(rounds)
    return found


def same(a, b):
    return list(a) == list(b) and all(np.array_equal(a[p], b[p]) for p in a)


def test_seeds_of_data_orders_differ_by_seed_kind_and_round():
    seeds = {_seed(s, k, 0, r) for s in (0, 1) for k in ("ticket", "dense") for r in range(5)}
    assert len(seeds) == 20


@given(st.integers(0, 2**31), st.text(max_size=20), st.integers(0, 99))
def test_a_seed_of_data_order_is_a_function_that_batches_take(seed, kind, round):
    assert _seed(seed, kind, round) == _seed(seed, kind, round) < 2**32


def test_a_stop_is_written_down_and_met_again(tmp_path):
    with pytest.raises(SearchStoppedError, match="round 2: NaN"), stopping(tmp_path, 2), as_stop():
        raise ValueError("NaN")
    assert json.loads((tmp_path / STOPPED).read_text()) == {"round": 2, "reason": "round 2: NaN"}
    with pytest.raises(SearchStoppedError, match=r"^round 2: NaN$"), stopping(tmp_path, 3):
        raise AssertionError("nothing may be trained")


def test_other_errors_are_no_stop(tmp_path):
    with pytest.raises(ValueError, match="a damaged file"), stopping(tmp_path, 2):
        raise ValueError("a damaged file")
    assert stopped(tmp_path) is None


def test_a_damaged_note_of_a_stop_says_what_to_do(tmp_path):
    (tmp_path / STOPPED).write_text('{"round"')
    with pytest.raises(ValueError, match=r"stopped\.json.*Remove it"):
        stopped(tmp_path)


def test_densities_are_those_of_the_rates_exactly(tmp_path):
    found = searched(tmp_path, 3)
    sizes, alive = [64 * 300, 300 * 100, 100 * 10], [19200, 30000, 1000]
    for r in range(3):
        counts = [int(m.sum()) for m in found.ticket(r).masks.values()]
        assert counts == alive
        assert found.store.place(0, r).record()["density"] == sum(alive) / sum(sizes)
        alive = [n - round(n * rate) for n, rate in zip(alive, (0.2, 0.2, 0.1), strict=True)]


def test_ticket_and_trained_files_hold_start_and_end(tmp_path):
    found = searched(tmp_path, 2)
    start, rewind = found.ticket(1), found.rewind_point()
    assert same(start.masks, found.trained(1).masks)
    for path, mask in start.masks.items():
        assert np.array_equal(start.weights[path], np.where(mask, rewind.variables[path], 0))
    now = weights.read(weights.all_weights(found.trainer.model))
    assert same(found.trained(1).weights, {p: now[p] for p in found.trained(1).weights})
    record = found.store.place(0, 1).record()
    assert (start.metadata["round"], start.metadata["kind"]) == (1, TICKET)
    assert start.metadata["metrics"]["test_accuracy"] == record["end"]["test_accuracy"]
    assert record["curve"]["step"] == [4, 8, 12] and record["end"]["step"] == 12
    assert not found.store.place(0, 1).checkpoint.exists()


def test_the_masks_of_a_round_prune_the_smallest_trained_weights(tmp_path):
    found = searched(tmp_path, 2)
    for path, mask in found.ticket(1).masks.items():
        size = np.abs(found.trained(0).weights[path])
        assert size[mask].min() >= size[~mask].max()


def fit_search(config, rounds, rewind_steps=0, rewind="weights"):
    """The same search by `find_ticket` and `model.fit`, on the same batches.

    Neither is compiled by XLA, which rounds a fit's graph otherwise than ours.
    """
    data = setup.load_data(config)
    lengths = setup.lengths(config, data)
    model = setup.build_model(config, data, config.seed)
    setup.make_compiled(config, model, lengths)
    model.jit_compile = False
    options = setup.make_settings(config, model, data, lengths)
    ends = []

    def train(model, callbacks):
        start = rewind_steps if ends else 0
        seed = _seed(config.seed, TICKET, 0, len(ends))
        stream = batches(data.train, config.batch_size, seed, start=start)
        steps = lengths.total // 3
        options = {"steps_per_epoch": steps, "shuffle": False, "verbose": 0}
        model.fit(stream, epochs=3, callbacks=callbacks, **options)
        ends.append(weights.read(weights.all_weights(model)))

    search = kl.find_ticket(
        model,
        train,
        rounds,
        verbose=0,
        prune_fraction=config.prune_fraction,
        scope=options.scope,
        rewind=rewind,
        rewind_steps=rewind_steps,
    )
    return search, ends


@pytest.mark.parametrize("rewind_to", [0, 4])
def test_a_search_is_find_ticket_bit_for_bit(tmp_path, rewind_to):
    settings = {"rewind_to": f"{rewind_to}it"}
    found = searched(tmp_path, 3, **settings)
    search, ends = fit_search(Config(**SMALL, **settings).complete(), 3, rewind_to)
    assert not search.stopped
    for r in range(3):
        assert same(found.ticket(r).masks, search.ticket(r).masks)
        for path, value in found.trained(r).weights.items():
            assert np.array_equal(value, ends[r][path]), (r, path)
        assert r == 0 or same(found.ticket(r).weights, search.ticket(r).weights)


def starts(monkeypatch):
    """What each training that begins from now on starts from: step, rate's step and batch."""
    seen = []
    original = Trainer.train

    def train(self, start, seed, until, *more):
        state = weights.read(weights.all_weights(self.model))
        seen.append((start.snapshot.step, int(self.model.optimizer.iterations), seed, until, state))
        return original(self, start, seed, until, *more)

    monkeypatch.setattr(Trainer, "train", train)
    return seen


def test_rewound_rounds_begin_at_step_k_with_its_weights(tmp_path, monkeypatch):
    seen = starts(monkeypatch)
    found = searched(tmp_path, 3, rewind_to="4it")
    assert [(s[0], s[1], s[3]) for s in seen] == [(0, 0, 12), (4, 4, 12), (4, 4, 12)]
    assert [s[2] for s in seen] == [_seed(0, TICKET, 0, r) for r in range(3)]
    rewind = found.rewind_point().variables
    for r in (1, 2):
        ticket = found.ticket(r)
        for path, value in ticket.weights.items():
            assert np.array_equal(value, rewind[path] * ticket.masks.get(path, True))
        assert same(ticket.weights, seen[r][4])
        record = found.store.place(0, r).record()
        assert (record["first_step"], record["steps"]) == (4, 8)


def test_the_state_at_the_rewind_point_is_that_of_a_training_of_k_steps(tmp_path):
    found = searched(tmp_path, 1, rewind_to="4it")
    part = found.trainer
    start = part.initial(0)
    part.put(start, part.full_masks)
    end = part.train(Progress(start), _seed(0, TICKET, 0, 0), 4)
    assert same(end.snapshot.variables, found.rewind_point().variables)
    for a, b in zip(end.snapshot.optimizer, found.rewind_point().optimizer, strict=True):
        assert np.array_equal(a, b)


def test_learning_rate_rewinding_keeps_the_weights(tmp_path, monkeypatch):
    seen = starts(monkeypatch)
    found = searched(tmp_path, 2, rewind="learning_rate", rewind_to="4it")
    assert [(s[0], s[1], s[3]) for s in seen] == [(0, 0, 12), (4, 4, 12)]
    start, before = found.ticket(1), found.trained(0)
    for path, value in start.weights.items():
        assert np.array_equal(value, before.weights[path] * start.masks.get(path, True))


def test_without_rewinding_each_round_goes_on_where_the_last_ended(tmp_path, monkeypatch):
    seen = starts(monkeypatch)
    found = searched(tmp_path, 3, rewind="none")
    assert [(s[0], s[1], s[3]) for s in seen] == [(0, 0, 12), (12, 12, 24), (24, 24, 36)]
    end = load(found.store.place(0, 1).checkpoint).snapshot
    assert end.step == 24
    for path, value in found.ticket(2).weights.items():
        assert np.array_equal(value, end.variables[path] * found.ticket(2).masks.get(path, True))


@pytest.mark.parametrize("rewind", ["weights", "learning_rate", "none"])
def test_a_round_that_was_cut_off_ends_in_the_same_bits(tmp_path, rewind):
    whole = searched(tmp_path / "whole", 3, rewind=rewind)
    for cut in (4, 8, 12):
        folder = tmp_path / f"cut{cut}"
        with pytest.raises(KeyboardInterrupt):
            searched(folder, 3, Cutting(12 + cut), rewind=rewind)
        assert Store(folder).place(0, 1).checkpoint.exists() == (cut > 4)
        assert not Store(folder).place(0, 1).done
        other = searched(folder, 3, rewind=rewind)
        for r in range(3):
            a, b = whole.store.place(0, r), other.store.place(0, r)
            assert a.ticket.read_bytes() == b.ticket.read_bytes()
            assert a.trained.read_bytes() == b.trained.read_bytes()
            assert without_seconds(a.record()) == without_seconds(b.record())


class Cutting(Silent):
    """Is interrupted, before the checkpoint, at the evaluation after so many steps in all."""

    def __init__(self, steps):
        self.left = steps

    def advance(self, steps, numbers):
        self.left -= steps
        if self.left == 0:
            raise KeyboardInterrupt


def without_seconds(record):
    return {k: v for k, v in record.items() if k != "seconds"}


def test_a_damaged_checkpoint_costs_its_round_only(tmp_path):
    whole = searched(tmp_path / "whole", 3)
    for damage in (b"", b"nonsense", "half", "bit"):
        folder = tmp_path / repr(damage)
        with pytest.raises(KeyboardInterrupt):
            searched(folder, 3, Cutting(24))
        path = Store(folder).place(0, 1).checkpoint
        good = path.read_bytes()
        flipped = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
        path.write_bytes({"half": good[: len(good) // 2], "bit": flipped}.get(damage, damage))
        listener = Listener()
        other = searched(folder, 3, listener)
        assert len(listener.said) == 1
        assert listener.said[0].startswith(f"Cannot read the checkpoint {str(path)!r}")
        assert listener.said[0].endswith("That round starts anew.")
        for r in range(3):
            a, b = whole.store.place(0, r), other.store.place(0, r)
            assert a.trained.read_bytes() == b.trained.read_bytes()
            assert without_seconds(a.record()) == without_seconds(b.record())


@pytest.mark.parametrize("name", ["trained.safetensors", "record.json"])
@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_result_is_named_with_the_remedy(tmp_path, name, content):
    whole = searched(tmp_path, 2)
    path = whole.store.place(0, 1).folder / name
    content = path.read_bytes()[:-9] if content is None else content
    path.write_bytes(content)
    with pytest.raises(ValueError) as error:
        searched(tmp_path, 3)
    assert str(path) in str(error.value)
    assert f"Remove the folder {str(path.parent)!r}" in str(error.value)
    assert stopped(whole.store.branch(0)) is None
    assert not whole.store.place(0, 2).folder.exists()


def test_the_remedy_for_a_damaged_result_works(tmp_path):
    whole = searched(tmp_path, 3)
    place = whole.store.place(0, 1)
    before = place.trained.read_bytes(), without_seconds(place.record())
    for file in place.folder.iterdir():
        file.unlink()
    place.folder.rmdir()
    searched(tmp_path, 3)
    assert (place.trained.read_bytes(), without_seconds(place.record())) == before


def test_a_damaged_rewind_point_is_named_with_the_remedy(tmp_path):
    found = searched(tmp_path, 2)
    found.rewind_path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"rewind\.safetensors.*Remove the folder.*round_00"):
        searched(tmp_path, 3)


def breaking(monkeypatch, round):
    """From now on, the training of a round of the search ends with a NaN."""
    original = Trainer.train

    def train(self, start, seed, *more):
        end = original(self, start, seed, *more)
        if seed == _seed(0, TICKET, 0, round):
            path = next(iter(self.full_masks))
            end.snapshot.variables[path][0, 0] = np.nan
        return end

    monkeypatch.setattr(Trainer, "train", train)


def test_nan_stops_a_search_and_keeps_its_good_rounds(tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        breaking(broken, 2)
        with pytest.raises(SearchStoppedError, match="round 2: NaN or Inf"):
            searched(tmp_path, 4)
    store = Store(tmp_path)
    assert [store.place(0, r).done for r in range(4)] == [True, True, False, False]
    assert stopped(store.branch(0))["round"] == 2
    seen = starts(monkeypatch)
    with pytest.raises(SearchStoppedError, match="round 2: NaN or Inf"):
        searched(tmp_path, 4)
    assert seen == []
    searched(tmp_path, 2)


def test_a_huge_learning_rate_stops_the_search_in_the_first_round(tmp_path):
    with pytest.raises(SearchStoppedError, match="round 0: NaN or Inf in the weights"):
        searched(tmp_path, 3, learning_rate=1e30)
    assert not Store(tmp_path).place(0, 0).done
    assert stopped(Store(tmp_path).branch(0))["round"] == 0


def test_controls_of_the_rounds_before_a_stop_still_run(tmp_path, monkeypatch):
    job = Job(str(tmp_path), Config(**SMALL))
    breaking(monkeypatch, 2)
    listener = Listener()
    listener.begin = lambda title, steps: None
    job.do(Task(0, TICKET, 0, (0, 1, 2, 3)), listener)
    assert len(listener.said) == 1 and "search, replicate 0 stopped: round 2" in listener.said[0]
    job.do(Task(0, "reinitialize", 0, (1, 2, 3)), listener)
    rows = [(r["kind"], r["round"]) for r in listener.rows]
    assert rows == [(TICKET, 0), (TICKET, 1), ("reinitialize", 1)]
    assert len(listener.said) == 1


def test_a_search_tells_of_every_step(tmp_path):
    listener = Listener()
    searched(tmp_path, 3, listener, rewind_to="4it")
    assert listener.steps == 12 + 8 + 8


def test_no_prunable_weight_of_a_pruned_ticket_comes_back(tmp_path):
    found = searched(tmp_path, 3)
    for r in (1, 2):
        for path, mask in found.trained(r).masks.items():
            assert not found.trained(r).weights[path][~mask].any()
            assert not (mask & ~found.trained(r - 1).masks[path]).any()
