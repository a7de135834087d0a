"""TensorBoard's files, read back as TensorBoard reads them."""

import importlib.util

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

from keras_lottery.experiments import tensorboard
from keras_lottery.experiments.config import FORMAT
from keras_lottery.experiments.store import RECORD, Store, write_json

CURVE = {"step": [2, 4, 5], "loss": [2.0, 1.0, 0.5], "val_accuracy": [0.25, None, 0.75]}
SETTINGS = {
    "dataset": "digits",
    "learning_rate": 0.1,
    "seed": 3,
    "cosine": False,
    "lr_drops": ["10it", "20it"],
    "subset": None,
}


def add(store, kind="ticket", seed=0, round=1, replicate=0, curve=CURVE):
    place = store.place(replicate, round, kind, seed)
    place.begin()
    about = {"kind": kind, "replicate": replicate, "branch_seed": seed, "round": round}
    about |= {"density": 0.5, "layer_density": {"dense/kernel": 0.25}, "first_step": 2}
    write_json(place.folder / RECORD, {**about, "curve": curve})


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "run")
    made.save_config({"format": FORMAT, "settings": SETTINGS})
    return made


def events(folder):
    found = EventAccumulator(str(folder), {"tensors": 0})
    return found.Reload()


def scalars(folder, tag):
    return [
        (e.step, float(tensor_util.make_ndarray(e.tensor_proto)))
        for e in events(folder).Tensors(tag)
    ]


def test_curves_and_densities_are_read_back(store):
    add(store)
    folder = tensorboard.write(store) / "replicate_0" / "ticket" / "round_01"
    assert scalars(folder, "loss") == [(2, 2.0), (4, 1.0), (5, 0.5)]
    assert scalars(folder, "val_accuracy") == [(2, 0.25), (5, 0.75)]
    assert scalars(folder, "density/dense/kernel") == [(2, 0.25)]
    assert "step" not in events(folder).Tags()["tensors"]


def hparams(folder):
    data = events(folder).summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
    values = {k: getattr(v, v.WhichOneof("kind")) for k, v in start.hparams.items()}
    return values, start.group_name


def test_settings_are_hparams(store):
    add(store)
    add(store, "noise:scale=0.5", seed=2)
    root = tensorboard.write(store)
    values, name = hparams(root / "replicate_0/ticket/round_01")
    given = {k: v for k, v in SETTINGS.items() if v is not None}
    facts = {"kind": "ticket", "density": 0.5, "round": 1}
    assert values == {**given, "lr_drops": "10it,20it", **facts}
    other, other_name = hparams(root / "replicate_0/noise+scale=0.5-2/round_01")
    assert other["kind"] == "noise:scale=0.5" and other_name != name


def test_writing_again_replaces_what_was_there(store):
    add(store)
    tensorboard.write(store)
    add(store, curve={"step": [1], "loss": [9.0]})
    root = tensorboard.write(store)
    folder = root / "replicate_0" / "ticket" / "round_01"
    assert len(list(folder.iterdir())) == 1
    assert scalars(folder, "loss") == [(1, 9.0)]
    assert "val_accuracy" not in events(folder).Tags()["tensors"]


def test_every_training_has_a_folder_of_its_own(store):
    kinds = ["transfer:dataset=../a/b.npz", "transfer:dataset=.._a_b.npz", "dense"]
    for kind in kinds:
        for seed in (0, 1):
            add(store, kind, seed)
    add(store, replicate=1, round=0)
    root = tensorboard.write(store)
    found = {p.parent.relative_to(root).as_posix() for p in root.rglob("events.*")}
    assert len(found) == 2 * len(kinds) + 1
    assert {"replicate_1/ticket/round_00", "replicate_0/dense-1/round_01"} < found


def test_a_run_without_a_finished_training_gives_nothing(store):
    assert not tensorboard.write(store).exists()


def test_without_tensorboard_the_extra_is_named(store, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'keras-lottery\[tensorboard\]'"):
        tensorboard.write(store)
