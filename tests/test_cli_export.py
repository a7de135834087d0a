"""`keras-lottery export`: what it writes and prints, and plain words when it cannot."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import SCRIPT, TINY, call, files, make_place, python
from matplotlib import image

from keras_lottery import Ticket
from keras_lottery.experiments import deploying
from keras_lottery.experiments.store import Store

FLAGS = ["format", "round", "tolerance", "replicate", "measure", "repeats", "architecture"]
FLAGS += ["out", "overwrite"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the module of the models and a run of three rounds under `runs/`."""
    folder = tmp_path_factory.mktemp("place")
    make_place(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        for name, *flags in (("subclassed", "--rounds=1"), ("small", "--rounds=3")):
            flags += ["--replicates=2"] if name == "small" else []
            flags += [f"--model=command_nets:{name}", f"--workdir=runs/{name}", "--verbosity=-1"]
            assert call("find", "--dataset=tiny.npz", *TINY, *flags) == 0
        yield folder


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """A copy of that folder of one's own, entered; the newest run is `small`."""
    shutil.copytree(place, tmp_path, dirs_exist_ok=True, copy_function=shutil.copy2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.fixture
def cli(monkeypatch, capsys, here):
    """Runs the command line in this process: (exit code, stdout, stderr)."""

    def run(*args):
        capsys.readouterr()
        return call(*args), *capsys.readouterr()

    return run


@pytest.fixture
def refused(cli, here):
    """Calls with arguments that must be refused: exit code 2, one line on stderr, no new file."""

    def run(*args, words):
        before = files(here)
        code, _, err = cli("export", *args)
        assert code == 2, err
        assert err.startswith("keras-lottery export: ")
        assert len(err.splitlines()) == 1, err
        for word in words:
            assert word in err
        assert files(here) == before

    return run


SMALL = os.path.join("runs", "small")


def training(round, replicate=0):
    """The folder of a round."""
    return Store(SMALL).place(replicate, round).folder


# Help and wrong arguments ---------------------------------------------------------------


def test_the_usage_and_the_help_list_the_command_its_argument_and_every_flag(cli):
    assert "export" in cli("help")[1]
    code, out, err = cli("export", "--help")
    assert (code, err) == (0, "")
    assert "usage: keras-lottery export [TICKET_OR_RUN] [--flags]" in out
    for flag in FLAGS:
        assert f"--{flag}" in out or f"--[no]{flag}" in out
    for word in (*deploying.WRITERS, "best", "last", "runs/"):
        assert word in out


def test_an_unknown_flag_lists_the_valid_ones(cli):
    code, _, err = cli("export", "--fromat=keras")
    assert code == 2
    for name in ("fromat", *FLAGS):
        assert name in err


ROUND_1 = f"{SMALL}/replicate_0/ticket/round_01"
BAD = {
    "an unknown format": (("--format=keras,h5",), ["h5", *deploying.WRITERS]),
    "no format": (("--format=",), deploying.WRITERS),
    "an unknown round": (("--round=7",), ["--round", "best, last or one of [0, 1, 2]", "'7'"]),
    "a round in words": (("--round=first",), ["best, last or one of", "'first'"]),
    "an unknown replicate": (("--replicate=2",), ["replicate 2", "are: [0, 1]"]),
    "a tolerance out of range": (("--tolerance=1.5",), ["tolerance", "1.5"]),
    "a tolerance in words": (("--tolerance=small",), ["tolerance", "small"]),
    "no repeats": (("--measure", "--repeats=0"), ["repeats"]),
    "nothing there": (("nowhere",), ["no run and no ticket", "nowhere"]),
    "no ticket": (("command_nets.py",), ["Cannot read the ticket", "command_nets.py"]),
    "no run": (("runs",), ["'runs' is not the folder of a run"]),
    "two runs": ((SMALL, SMALL), [f"Unexpected: {SMALL}", "TICKET_OR_RUN"]),
    "a file for a folder": (("--out=tiny.npz",), ["Cannot write to 'tiny.npz'"]),
    "a place below a file": (("--out=tiny.npz/x",), ["Cannot write to 'tiny.npz/x'"]),
    "a missing architecture": (("--architecture=no.keras",), ["Cannot load 'no.keras'"]),
    "a round of a ticket": (
        (f"{ROUND_1}/ticket.safetensors", "--round=1"),
        ["--round", "a run only", "ticket.safetensors"],
    ),
    "a tolerance for a ticket": (
        (f"{ROUND_1}/ticket.safetensors", "--tolerance=0.1"),
        ["--tolerance", "a run only"],
    ),
    "no measure of a subclassed model": (
        (os.path.join("runs", "subclassed"), "--measure"),
        ["Sequential or functional", "subclassed Net"],
    ),
}


@pytest.mark.parametrize(("args", "words"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_one_line_of_plain_words_and_nothing_is_written(refused, args, words):
    refused(*args, words=words)


def test_without_any_run_it_is_said_how_to_make_one(refused, here):
    shutil.rmtree(here / "runs")
    refused(words=["no run under 'runs'", "keras-lottery find"])


def test_a_run_whose_trained_weights_are_gone_says_what_it_lacks(refused, here):
    (training(1) / "trained.safetensors").unlink()
    refused("--round=1", words=[f"{ROUND_1}/trained.safetensors", "Remove the folder"])


def test_a_ticket_of_another_model_is_refused(refused, here):
    keras.Sequential([keras.Input((3, 3)), keras.layers.Dense(4)]).save(here / "other.keras")
    refused("--architecture=other.keras", words=["another architecture"])


def test_a_missing_matplotlib_is_told_before_anything_is_written(refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused("--measure", words=["pip install 'keras-lottery[plots]'"])


# What is written ------------------------------------------------------------------------


def test_by_default_the_newest_run_becomes_a_saved_model(cli, here):
    code, out, err = cli("export")
    assert (code, err) == (0, "")
    records = [r for r in Store(SMALL).records() if r["replicate"] == 0]
    least = records[0]["end"]["val_accuracy"] - 0.01 - 1e-9
    chosen = [r for r in records if r["end"]["val_accuracy"] >= least][-1]
    path = os.path.join(SMALL, "export", f"round_{chosen['round']:02d}_saved_model")
    first, second = out.splitlines()
    assert first.startswith(f"{SMALL}, round {chosen['round']}: {chosen['density']:.2%} density")
    assert second.split() == ["saved_model", path]
    assert tf.saved_model.load(path).serve(tf.zeros((5, 3, 3, 1))).shape == (5, 2)
    assert os.listdir(here / SMALL / "export") == [os.path.basename(path)]


def test_the_chosen_rounds_trained_weights_are_exported(cli, here):
    assert cli("export", SMALL, "--round=1", "--format=keras")[0] == 0
    model = keras.saving.load_model(here / SMALL / "export" / "round_01.keras")
    expected = Ticket.load(training(1) / "trained.safetensors").weights
    for value, array in zip(model.get_weights(), expected.values(), strict=True):
        np.testing.assert_array_equal(value, array)


def test_a_replicate_is_exported_under_its_own_name(cli, here):
    assert cli("export", "--replicate=1", "--round=1", "--format=keras")[0] == 0
    model = keras.saving.load_model(here / SMALL / "export" / "replicate_1_round_01.keras")
    expected = Ticket.load(training(1, replicate=1) / "trained.safetensors").weights
    for value, array in zip(model.get_weights(), expected.values(), strict=True):
        np.testing.assert_array_equal(value, array)


def test_every_format_goes_to_the_asked_folder(cli, here):
    code, out, _ = cli("export", "--round=last", "--format=keras,litert,compact", "--out=a/b")
    assert code == 0
    names = ["round_02.keras", "round_02.tflite", "round_02_compact.keras"]
    assert sorted(os.listdir(here / "a" / "b")) == sorted(names)
    assert [line.split()[1] for line in out.splitlines()[1:]] == [
        os.path.join("a", "b", name) for name in names
    ]
    assert not (here / SMALL / "export").exists()


def test_a_ticket_file_is_exported_beside_itself(cli, refused, here):
    path = training(2) / "ticket.safetensors"
    name = Ticket.load(path).metadata["model"]["name"]
    refused(path, words=["names code as its model", f"--architecture={name}"])
    code, out, _ = cli("export", "--format=keras", f"--architecture={name}", path)
    assert code == 0
    assert "not trained" in out.splitlines()[0]
    assert (training(2) / "export" / "ticket.keras").exists()


def test_a_ticket_that_names_no_model_needs_an_architecture(cli, refused, here):
    path = training(1) / "trained.safetensors"
    found = Ticket.load(path)
    model = deploying.build(found, found.metadata["model"]["name"])
    Ticket(found.masks, found.weights).save("bare.safetensors")
    refused("bare.safetensors", words=["does not say how its model is built", "--architecture="])
    model.save("net.keras")
    flags = ["--architecture=net.keras", "--format=keras", "--out=."]
    assert cli("export", "bare.safetensors", *flags)[0] == 0
    loaded = keras.saving.load_model("bare.keras")
    np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize("kind", ["keras", "saved_model", "json", "png"])
def test_what_is_there_is_replaced_only_if_asked(cli, refused, here, kind):
    names = {"keras": "round_01.keras", "saved_model": "round_01_saved_model/saved_model.pb"}
    name = names.get(kind, f"round_01_measured.{kind}")
    mine = here / SMALL / "export" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    flags = ["--round=1", "--format=keras,saved_model", "--measure", "--repeats=1"]
    refused(*flags, words=[name.split("/")[0], "exists already", "--overwrite", "--out"])
    code, _, err = cli("export", *flags, "--overwrite")
    assert (code, err) == (0, "")
    assert mine.stat().st_size > 100


# Measuring, as a script -----------------------------------------------------------------

FORMATS = ("keras", "saved_model", "litert", "compact")


@pytest.fixture(scope="module")
def measured(place):
    """The finished script, and the folder that it wrote."""
    flags = ["--round=1", f"--format={','.join(FORMATS)}", "--measure", "--repeats=2", "--out=out"]
    done = python(SCRIPT, "export", *flags, cwd=place, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    return done, place / "out"


def test_the_script_says_nothing_on_stderr_and_what_it_prints_can_be_read_in_a_file(measured):
    done, _ = measured
    assert done.stderr == ""
    assert done.stdout.replace("\n", "").isprintable()
    assert "\u2026" not in done.stdout  # nothing is cut


def test_the_measure_is_printed_and_kept_as_json_and_picture(measured):
    done, folder = measured
    kept = json.loads((folder / "round_01_measured.json").read_text())
    assert kept["about"]["repeats"] == 2
    assert [r["name"] for r in kept["rows"]] == [n for f in FORMATS for n in (f, f"{f}, dense")]
    assert [r["is_dense"] for r in kept["rows"]] == [False, True] * 4
    lines = done.stdout.splitlines()
    first = next(i for i, line in enumerate(lines) if "ms at batch 32" in line) + 1
    for line, row in zip(lines[first:], kept["rows"], strict=False):
        assert line.startswith(row["name"])
        assert f"{row['bytes']:,}" in line
    assert image.imread(folder / "round_01_measured.png").std() > 0
    for end in (".json", ".png"):
        assert os.path.join("out", f"round_01_measured{end}") in done.stdout


def test_the_measure_agrees_with_the_files_and_the_run(measured, place):
    _, folder = measured
    rows = json.loads((folder / "round_01_measured.json").read_text())["rows"]
    records = Store(place / SMALL).records()
    exported, dense = rows[::2], rows[1::2]
    assert [r["density"] for r in exported[:3]] == pytest.approx([records[1]["density"]] * 3)
    assert dense[0]["density"] == 1
    assert exported[0]["bytes"] == (folder / "round_01.keras").stat().st_size
    assert max(r["difference"] for r in exported) < 1e-4
    assert all(r["difference"] is None for r in dense)


def test_what_python_warns_of_is_still_shown(here):
    code = """
import sys, warnings
import keras_lottery_command as c
from keras_lottery.experiments import deploying
write = deploying.WRITERS["keras"][1]
def warn(*args):
    warnings.warn("look here", RuntimeWarning, stacklevel=1)
    return write(*args)
deploying.WRITERS["keras"] = (".keras", warn)
c.run()
print("still here", file=sys.stderr)
"""
    code = code.replace("c.run()", "try:\n    c.run()\nexcept SystemExit:\n    pass")
    done = python(code, "export", SMALL, "--format=keras", TF_CPP_MIN_LOG_LEVEL="3")
    assert "look here" in done.stderr
    assert done.stderr.splitlines()[-1] == "still here"
