"""What of a run is done, cut off, missing, stopped, running."""

import filelock
import pytest

from keras_lottery.experiments import checkpoints
from keras_lottery.experiments.checkpoints import Progress
from keras_lottery.experiments.config import FORMAT
from keras_lottery.experiments.plan import Plan, branches
from keras_lottery.experiments.status import status
from keras_lottery.experiments.stopping import STOPPED
from keras_lottery.experiments.store import LOCK, RECORD, TICKET, Store, write_json
from keras_lottery.rewinding import Snapshot


@pytest.fixture
def store(tmp_path):
    """A run of two searches of 3 rounds, each with a control at rounds 1 and 2."""
    plan = Plan(3, 2, branches(["random_mask"]))
    found = Store(tmp_path)
    found.save_config({"format": FORMAT, "plan": plan.to_dict()})
    return found


def done(store, replicate, round, kind=TICKET, seconds=2.0):
    place = store.place(replicate, round, kind)
    place.begin()
    about = {"kind": kind, "replicate": replicate, "branch_seed": 0, "round": round}
    write_json(place.folder / RECORD, {**about, "seconds": seconds})


def counts(store):
    return [(s.task.kind, s.task.replicate, s.done, s.missing) for s in status(store).states]


def test_a_new_run_misses_everything(store):
    found = status(store)
    assert counts(store) == [
        (TICKET, 0, 0, 3),
        (TICKET, 1, 0, 3),
        ("random_mask", 0, 0, 2),
        ("random_mask", 1, 0, 2),
    ]
    assert (found.working, found.seconds_left) == (False, None)
    assert all(s.stopped is None and s.on_the_way == () for s in found.states)


def test_what_has_a_record_is_done(store):
    for round in range(3):
        done(store, 0, round)
    done(store, 1, 0)
    done(store, 0, 2, "random_mask")
    assert [c[2:] for c in counts(store)] == [(3, 0), (1, 2), (1, 1), (0, 2)]


def test_the_time_left_is_the_median_for_each_missing_training(store):
    for round, seconds in enumerate((1.0, 2.0, 30.0)):
        done(store, 0, round, seconds=seconds)
    assert status(store).seconds_left == 2.0 * (3 + 2 + 2)


def test_a_round_that_was_cut_off_tells_its_last_checkpoint(store):
    done(store, 0, 0)
    place = store.place(0, 1)
    place.begin()
    assert status(store).states[0].on_the_way == ((1, None),)
    checkpoints.save(place.checkpoint, Progress(Snapshot(400, {})))
    assert status(store).states[0].on_the_way == ((1, 400),)
    place.checkpoint.write_bytes(place.checkpoint.read_bytes()[:20])
    assert status(store).states[0].on_the_way == ((1, None),)


def test_a_search_that_stopped_says_why_and_takes_no_more_time(store):
    done(store, 0, 0)
    done(store, 0, 1)
    write_json(store.branch(0) / STOPPED, {"round": 2, "reason": "round 2: NaN"})
    found = status(store)
    assert [s.stopped for s in found.states] == ["round 2: NaN", None, None, None]
    assert found.seconds_left == 2.0 * (3 + 1 + 2)


def test_controls_of_rounds_that_a_stopped_search_never_reached_are_not_missing(store):
    done(store, 0, 0)
    done(store, 0, 1)
    done(store, 0, 1, "random_mask")
    write_json(store.branch(0) / STOPPED, {"round": 2, "reason": "round 2: NaN"})
    assert [c[2:] for c in counts(store)] == [(2, 1), (0, 3), (1, 0), (0, 2)]


def test_a_control_that_stopped_says_why(store):
    folder = store.branch(1, "random_mask")
    folder.mkdir(parents=True)
    write_json(folder / STOPPED, {"round": 1, "reason": "round 1: NaN"})
    assert [s.stopped for s in status(store).states] == [None, None, None, "round 1: NaN"]


def test_a_run_is_working_while_its_lock_is_held(store):
    lock = filelock.FileLock(store.folder / LOCK)
    with lock:
        assert status(store).working
    assert not status(store).working


@pytest.mark.parametrize("content", ["", "{", "null"])
def test_a_damaged_record_is_named(store, content):
    done(store, 0, 0)
    path = store.place(0, 0).folder / RECORD
    path.write_text(content)
    with pytest.raises(ValueError, match=r"record\.json.*Remove the folder"):
        status(store)


def test_a_damaged_note_of_a_stop_is_named(store):
    done(store, 0, 0)
    (store.branch(0) / STOPPED).write_text("{")
    with pytest.raises(ValueError, match=r"stopped\.json"):
        status(store)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not the folder of a run"):
        status(Store(tmp_path))
