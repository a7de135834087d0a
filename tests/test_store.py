"""A run's folder: where things lie, what is read back, who may write."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_lottery import Ticket
from keras_lottery.experiments import store as module
from keras_lottery.experiments.config import FORMAT
from keras_lottery.experiments.store import (
    Place,
    Store,
    all_runs,
    newest_run,
    present,
    sparsest_within,
    write_json,
)

HOLD = """
import sys
from keras_lottery.experiments.store import Store
lock = Store(sys.argv[1]).lock()
print("held", flush=True)
sys.stdin.read()
"""


def record(replicate=0, round=0, kind="ticket", seed=0, density=1.0, accuracy=0.9):
    about = {"replicate": replicate, "round": round, "kind": kind, "branch_seed": seed}
    return {**about, "density": density, "end": {"val_accuracy": accuracy}}


def add(store, **about):
    made = record(**about)
    place = store.place(made["replicate"], made["round"], made["kind"], made["branch_seed"])
    place.begin()
    write_json(place.folder / module.RECORD, made)
    return place


def ticket():
    mask = np.array([True, False])
    return Ticket({"w": mask}, {"w": np.float32([1, 0])})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "run")


# Paths ------------------------------------------------------------------------------------


def test_the_layout_is_the_documented_one():
    store = Store("run")
    assert store.place(0, 3).folder.as_posix() == "run/replicate_0/ticket/round_03"
    control = store.place(2, 12, "reinitialize", 1).folder
    assert control.as_posix() == "run/replicate_2/reinitialize-1/round_12"
    place = store.place(0, 3)
    names = [p.name for p in (place.ticket, place.trained, place.checkpoint)]
    assert names == ["ticket.safetensors", "trained.safetensors", "checkpoint.safetensors"]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("noise:scale=0.5", "noise+scale=0.5-0"),
        ("one_shot:counts=global", "one_shot+counts=global-0"),
        ("transfer:dataset=mnist", "transfer+dataset=mnist-0"),
    ],
)
def test_plain_options_stay_readable(kind, name):
    assert Store("run").branch(0, kind).name == name


ODD = [
    "transfer:dataset=../x/y.npz", "transfer:dataset=.._x_y.npz", "transfer:dataset=..\\x\\y.npz",
    "transfer:dataset=/x", "transfer:dataset=~x", "transfer:dataset=a b", "transfer:dataset=a_b",
    "transfer:model=a:b", "transfer:model=a+b", "transfer:dataset=" + 300 * "a",
    "transfer:dataset=" + 301 * "a", "transfer:dataset=x\n", "transfer:dataset=x*?",
]  # fmt: skip


def test_odd_controls_have_folders_of_their_own(store):
    folders = [store.branch(0, kind, seed) for kind in ODD for seed in (0, 1)]
    assert len({f.name for f in folders}) == len(folders)
    for folder in folders:
        assert folder.parent == store.replicate(0)
        folder.mkdir(parents=True)
    assert len(list(store.replicate(0).iterdir())) == len(folders)


@given(st.text(max_size=30), st.text(max_size=30))
def test_two_controls_never_share_a_folder(one, other):
    names = [Store("run").branch(0, f"transfer:dataset={text}").name for text in (one, other)]
    assert (names[0] == names[1]) == (one == other)
    assert not any(set(name) & set('/\\:*?"<>|\n\0') for name in names)


# Trainings --------------------------------------------------------------------------------


def test_a_training_is_done_once_its_record_is_there(store):
    place = store.place(0, 0)
    place.begin()
    place.checkpoint.write_bytes(b"state")
    assert not place.done
    place.finish(record(), ticket(), ticket())
    assert place.done and not place.checkpoint.exists()
    assert place.record() == record()
    assert Ticket.load(place.ticket).weights["w"].tolist() == [1, 0]
    assert Ticket.load(place.trained).masks["w"].tolist() == [True, False]


def test_the_state_is_kept_where_the_next_round_needs_it(store):
    place = store.place(0, 0)
    place.begin()
    place.checkpoint.write_bytes(b"state")
    place.finish(record(), ticket(), ticket(), keep_state=True)
    assert place.done and place.checkpoint.read_bytes() == b"state"


def test_a_training_that_cannot_be_written_is_not_done(store, monkeypatch):
    place = store.place(0, 0)
    place.begin()

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((OSError, ValueError), match="No space left"):
        place.finish(record(), ticket(), ticket())
    assert not place.done and list(place.folder.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[1]", "3", "null", b"\xff\xfe"])
def test_a_damaged_record_says_what_to_do(store, content):
    place = add(store, round=2)
    path = place.folder / "record.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"Cannot read .*round_02.*Remove the folder .*round_02'"):
        store.records()


def test_records_come_tickets_first_in_order(store):
    wanted = [
        {"replicate": 0, "round": 0},
        {"replicate": 0, "round": 2},
        {"replicate": 0, "round": 11},
        {"replicate": 1, "round": 0},
        {"replicate": 10, "round": 0},
        {"kind": "dense", "round": 0},
        {"kind": "reinitialize", "seed": 0, "round": 1},
        {"kind": "reinitialize", "seed": 2, "round": 1},
        {"kind": "reinitialize", "seed": 10, "round": 1},
    ]
    for about in wanted[::-1]:
        add(store, **about)
    store.place(0, 3).begin()
    chain = store.branch(0, "continued_training") / "chain" / "round_00"
    chain.mkdir(parents=True)
    write_json(chain / "record.json", record(kind="continued_training/chain"))
    assert store.records() == [record(**about) for about in wanted]


def test_no_folder_has_no_records(store):
    assert store.records() == []
    assert not store.folder.exists()


def test_present_lists_what_has_begun(store):
    for r in (10, 2):
        store.place(0, r).begin()
    (store.branch(0) / "stopped.json").write_text("{}")
    found = list(present(store.branch(0)))
    assert found == [Place(store.branch(0) / name) for name in ("round_02", "round_10")]
    assert not any(place.done for place in found)


# JSON and config --------------------------------------------------------------------------


def test_what_is_not_finite_becomes_null(tmp_path):
    path = tmp_path / "a.json"
    nan, inf = float("nan"), float("inf")
    write_json(path, {"a": nan, "b": [1.0, inf, (-inf, 2)], "c": {"d": nan}, "e": [[nan]]})
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "a": None,
        "b": [1.0, None, [None, 2]],
        "c": {"d": None},
        "e": [[None]],
    }


def test_a_curve_is_a_line(tmp_path):
    write_json(tmp_path / "a.json", {"curve": {"loss": [1.5, 2.5]}, "n": 1})
    text = (tmp_path / "a.json").read_text()
    assert text == '{\n "curve": {\n  "loss": [ 1.5, 2.5 ]\n },\n "n": 1\n}\n'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_comes_back(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, content)
    assert json.loads(path.read_text()) == content


def test_a_config_comes_back_and_may_be_replaced(store):
    store.save_config({"format": FORMAT, "plan": 1})
    store.save_config({"format": FORMAT, "plan": 2})
    assert store.config() == {"format": FORMAT, "plan": 2}


@pytest.mark.parametrize("found", [1, None, FORMAT + 1])
def test_a_run_of_another_format_is_refused(store, found):
    store.save_config({} if found is None else {"format": found})
    with pytest.raises(ValueError, match=rf"of format {found}, this package reads {FORMAT}\."):
        store.config()


def test_a_folder_that_is_no_run_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="run' is not the folder of a run"):
        store.config()
    store.folder.mkdir()
    (store.folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"Cannot read '.*config\.json'"):
        store.config()


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for action in (lambda s: s.save_config({}), lambda s: s.lock()):
        with pytest.raises(ValueError, match=r"Cannot write to '.*file.run'"):
            action(Store(tmp_path / "file" / "run"))


# Locks ------------------------------------------------------------------------------------


@pytest.fixture
def holder(store):
    """Another process that holds the lock."""
    store.folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(store.folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_keeps_us_out_until_it_ends(store, holder):
    assert store.locked()
    with pytest.raises(ValueError, match=r"Another process works on the run '.*run'\. Wait"):
        store.lock()
    holder.communicate()
    assert not store.locked()
    store.lock().release()


def test_a_killed_process_frees_the_lock(store, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not store.locked()
    store.lock().release()


def test_one_process_takes_the_lock_once(store):
    store.folder.mkdir()
    assert not store.locked()
    lock = store.lock()
    assert store.locked()
    with pytest.raises(ValueError, match="Another process"):
        store.lock()
    lock.release()
    assert not store.locked()


# Choosing ---------------------------------------------------------------------------------


def test_the_sparsest_round_within_a_tolerance():
    rows = [(0, 1.0, 0.90), (1, 0.5, 0.92), (2, 0.25, 0.80), (3, 0.1, 0.89), (4, 0.05, 0.5)]
    records = [record(round=r, density=d, accuracy=a) for r, d, a in rows]
    records.append(record(kind="dense", density=0.01))
    chosen = [sparsest_within(records, t) for t in (0, 0.01, 0.1, 0.4, 1)]
    assert chosen == [1, 3, 3, 4, 4]
    assert sparsest_within(records[::-1], 0) == 1


def test_a_round_without_an_accuracy_is_not_chosen():
    records = [record(), record(round=1, density=0.5, accuracy=None)]
    assert sparsest_within(records, 1.0) == 0


def test_a_difference_of_just_the_tolerance_counts():
    records = [record(accuracy=0.8), record(round=1, density=0.5, accuracy=0.7)]
    assert sparsest_within(records, 0.1) == 1


def test_without_anything_to_choose_from_it_says_so():
    with pytest.raises(ValueError, match="no finished round"):
        sparsest_within([record(kind="dense")], 0)
    with pytest.raises(ValueError, match=r"no validation accuracy\. Name a round: --round"):
        sparsest_within([record(accuracy=None), record(round=1, density=0.5)], 0)
    for tolerance in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"`tolerance` must lie in \[0, 1\]"):
            sparsest_within([record()], tolerance)


def test_the_newest_run_is_that_of_the_newest_config(tmp_path):
    for name, time in (("a", 3), ("b", 9), ("c", 5)):
        Store(tmp_path / name).save_config({"format": FORMAT})
        os.utime(tmp_path / name / "config.json", (time, time))
    (tmp_path / "no_run").mkdir()
    assert newest_run(tmp_path) == tmp_path / "b"
    assert all_runs(tmp_path) == [tmp_path / name for name in "abc"]


@pytest.mark.parametrize("name", ["", "missing"])
def test_no_run_at_all_is_told(tmp_path, name):
    assert all_runs(tmp_path / name) == []
    with pytest.raises(ValueError, match=r"no run under .*keras-lottery find"):
        newest_run(tmp_path / name)
