"""A run in its folder: going on, adding to it, refusing what does not fit, full disks."""

import errno
import os

import filelock
import numpy as np
import pytest
from runs import results

from keras_lottery import files
from keras_lottery.experiments import setup, work
from keras_lottery.experiments.config import Config
from keras_lottery.experiments.live import Live
from keras_lottery.experiments.plan import Plan, branches
from keras_lottery.experiments.runner import go_on, run
from keras_lottery.experiments.store import CONFIG, LOCK
from keras_lottery.experiments.training import Trainer

CONFIG_ = Config(subset=60, steps="4it", eval_every="2it", batch_size=20, rewind_to="1it")


@pytest.fixture(autouse=True)
def without_xla(monkeypatch):
    """Compiling takes most of the time of so small a training."""
    monkeypatch.setattr(setup, "use_jit", lambda model: False)


@pytest.fixture
def trained(monkeypatch):
    """Grows by the seed of the data order of each training that begins."""
    seeds, original = [], Trainer.train

    def train(self, start, seed, *more):
        seeds.append(seed)
        return original(self, start, seed, *more)

    monkeypatch.setattr(Trainer, "train", train)
    return seeds


def do(folder, rounds=2, replicates=1, controls=(), config=CONFIG_, **options):
    plan = Plan(rounds, replicates, branches(controls))
    options = {"checkpoint_seconds": 0.0, **options}
    return run(config, plan, folder, Live(quiet=True), **options)


def kinds(store):
    return [(r["kind"], r["replicate"], r["round"]) for r in store.records()]


def test_a_run_leaves_its_plan_its_facts_and_its_trainings(tmp_path):
    store = do(tmp_path / "run", controls=["random_mask"])
    assert kinds(store) == [("ticket", 0, 0), ("ticket", 0, 1), ("random_mask", 0, 1)]
    about = store.config()
    facts = about["facts"]
    assert (facts["sizes"]["train"], facts["total_steps"], facts["rewind_step"]) == (60, 4, 1)
    assert facts["prunable"] == 64 * 300 + 300 * 100 + 100 * 10
    assert Plan.from_dict(about["plan"]) == Plan(2, 1, branches(["random_mask"]))
    assert not store.locked()
    assert not list(store.folder.glob("**/checkpoint.safetensors"))


def test_the_same_command_again_trains_nothing_and_leaves_all_bytes(tmp_path, trained):
    def contents():
        found = [f for f in tmp_path.glob("**/*") if f.is_file() and f.name != LOCK]
        return {f: (f.read_bytes(), f.name == CONFIG or f.stat().st_mtime_ns) for f in found}

    do(tmp_path, controls=["random_mask", "dense"])
    before, n = contents(), len(trained)
    do(tmp_path, controls=["random_mask", "dense"])
    assert n == 4 and len(trained) == n
    assert contents() == before


def test_more_rounds_replicates_and_controls_are_added(tmp_path, trained):
    do(tmp_path / "a")
    before, _ = results(tmp_path / "a")
    store = do(tmp_path / "a", 3, 2, ["random_mask"])
    assert len(trained) == len(set(trained)) == 2 + 1 + 3 + 4
    after, records = results(tmp_path / "a")
    assert before.items() <= after.items()
    do(tmp_path / "b", 3, 2, ["random_mask"])
    assert results(tmp_path / "b") == (after, records)
    assert Plan.from_dict(store.config()["plan"]) == Plan(3, 2, branches(["random_mask"]))


def test_a_smaller_plan_takes_nothing_back(tmp_path, trained):
    do(tmp_path, 3, controls=["random_mask"])
    n = len(trained)
    store = do(tmp_path, 2)
    assert len(trained) == n
    assert Plan.from_dict(store.config()["plan"]) == Plan(3, 1, branches(["random_mask"]))


def test_go_on_does_what_the_folder_asks_for_and_more(tmp_path):
    do(tmp_path)
    store = go_on(tmp_path, Plan(2, 1, branches(["dense"])), Live(quiet=True))
    assert ("dense", 0, 0) in kinds(store)
    assert store.config()["settings"]["steps"] == "4it"


def test_other_settings_are_refused_by_name(tmp_path, trained):
    do(tmp_path)
    before, n = (tmp_path / CONFIG).read_bytes(), len(trained)
    other = Config(subset=60, steps="4it", eval_every="2it", batch_size=20, seed=7)
    with pytest.raises(ValueError, match=r"other settings: \{'rewind_to': '1it', 'seed': 0\}"):
        do(tmp_path, config=other)
    assert (tmp_path / CONFIG).read_bytes() == before and len(trained) == n


def npz(path, seed):
    rng = np.random.default_rng(seed)
    labels = np.arange(80) % 4
    images = rng.normal(labels[:, None, None], 1.0, (80, 4, 4)).astype("float32")
    np.savez(path, x_train=images, y_train=labels, x_test=images[:20], y_test=labels[:20])


def test_other_data_of_the_same_name_is_refused(tmp_path):
    config = Config(dataset=str(tmp_path / "d.npz"), steps="2it", eval_every="1it", batch_size=20)
    npz(config.dataset, 0)
    fingerprint = do(tmp_path / "run", 1, config=config).config()["facts"]["data"]
    npz(config.dataset, 1)
    work._trainer.cache_clear()
    with pytest.raises(ValueError, match=rf"fingerprint is {fingerprint}, now it is \w{{8}}\."):
        do(tmp_path / "run", 1, config=config)


def test_a_run_that_another_process_works_on_is_refused(tmp_path, trained):
    do(tmp_path)
    with (
        filelock.FileLock(tmp_path / LOCK),
        pytest.raises(ValueError, match="Another process works on the run"),
    ):
        do(tmp_path, 3)
    assert len(trained) == 2
    do(tmp_path, 3)
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("settings", "controls", "message"),
    [
        ({"batch_size": 61}, (), "A batch of 61 needs as many"),
        ({"rewind_to": "4it"}, (), "must lie before the end"),
        ({"dataset": "nowhere.npz"}, (), "nowhere.npz"),
        ({"model": "nonsense"}, (), "Unknown model 'nonsense'"),
        ({}, ("transfer:model=conv_2",), "needs a model with the weights"),
    ],
)
def test_what_cannot_work_is_refused_before_a_folder_is_made(tmp_path, settings, controls, message):
    given = {"subset": 60, "steps": "4it", "eval_every": "2it", "batch_size": 20, **settings}
    with pytest.raises(ValueError, match=message):
        do(tmp_path / "run", controls=controls, config=Config(**given))
    assert not (tmp_path / "run").exists()


def full_disk(monkeypatch, n, call):
    """From now on, the disk is full at the n-th call of `os.write` or `os.fsync`."""
    original, calls = getattr(os, call), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == n:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(*arguments)

    monkeypatch.setattr(files.os, call, failing)
    return calls


def test_a_full_disk_at_any_write_is_told_and_survived(tmp_path, monkeypatch):
    whole = ["random_mask", "continued_training"]
    with monkeypatch.context() as patch:
        calls = full_disk(patch, 0, "fsync")
        do(tmp_path / "whole", controls=whole)
    expected = results(tmp_path / "whole")
    assert len(calls) > 20
    for n in range(1, len(calls) + 1):
        folder = tmp_path / f"{n}"
        with monkeypatch.context() as patch:
            full_disk(patch, n, "fsync")
            with pytest.raises(ValueError, match=r"Cannot write to .*No space left on device"):
                do(folder, controls=whole)
        assert not list(folder.glob("**/.*.safetensors.*")), n
        do(folder, controls=whole)
        assert results(folder) == expected, n


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    store = do(tmp_path)
    left = store.place(0, 1).folder / ".ticket.safetensors.4711.0123abcd"
    left.write_bytes(b"half")
    (store.place(0, 1).folder / ".mine").write_text("")
    do(tmp_path)
    assert not left.exists()
    assert (store.place(0, 1).folder / ".mine").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"Cannot write to .*file/run"):
        do(tmp_path / "file" / "run")
