"""The command line: flags in, a run in a folder out, and plain words when it cannot be."""

import importlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl.testing import flagsaver

import keras_lottery
from keras_lottery import Ticket, controls, criteria
from keras_lottery.cli import find, main
from keras_lottery.experiments import runner

# Defines its flags now: what is defined inside a flagsaver is forgotten with it.
assert find.main
FLAGS = [
    *("dataset", "model", "rounds", "epochs", "prune_fraction", "output_fraction", "scope"),
    *("criterion", "rewind", "rewind_to", "optimizer", "learning_rate", "batch_size", "seed"),
    *("controls", "workdir"),
]
SCRIPT = "import keras_lottery_command as c; c.run()"
NETS = """
import keras

def small(shape, classes):
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(classes)]
    return keras.Sequential(layers)

def overflowing(shape, classes):
    last = keras.layers.Dense(classes, kernel_initializer=keras.initializers.Constant(3e38))
    return keras.Sequential([keras.Input(shape), keras.layers.Flatten(), last])
"""


def python(code, *args, cwd=None, **environment):
    """Runs `code` in a new interpreter, its output piped."""
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Runs the command line in this process, in an empty folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["keras-lottery", *args])
        capsys.readouterr()
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as stopped:
            main.run()
        return stopped.value.code, *capsys.readouterr()

    return call


def make_data(folder, name):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 3, 3)).astype(np.uint8), np.arange(60) % 2
    np.savez(folder / name, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])


# Without a run --------------------------------------------------------------------------


def test_without_a_command_the_usage_is_printed_and_the_exit_code_is_2(cli):
    code, out, _ = cli()
    assert code == 2
    assert "keras-lottery COMMAND" in out
    assert "find" in out


@pytest.mark.parametrize("ask", ["--help", "-h", "help"])
def test_asking_for_help_is_no_error(cli, ask):
    code, out, err = cli(ask)
    assert (code, err) == (0, "")
    assert "find" in out


def test_an_unknown_command_lists_the_commands(cli):
    code, out, err = cli("fnid", "--rounds=2")
    assert (code, out) == (2, "")
    assert "'fnid'" in err
    assert "find" in err.replace("fnid", "")


@pytest.mark.parametrize("ask", ["--help", "-h"])
def test_the_help_of_find_lists_every_flag(cli, ask):
    code, out, err = cli("find", ask)
    assert (code, err) == (0, "")
    for flag in FLAGS:
        assert f"--{flag}" in out or f"--[no]{flag}" in out
    for name in (*runner.OPTIMIZERS, *runner.SCOPES, *controls.NAMED, *criteria.NAMED):
        assert name in "".join(out.split())


def refused(result, *words):
    """Exit code 2 and one line on stderr that holds the words; nothing was written."""
    code, _, err = result
    assert code == 2
    assert err.startswith("keras-lottery find: ")
    assert len(err.splitlines()) == 1, err
    assert "Traceback" not in err
    for word in words:
        assert str(word) in err
    assert not os.path.exists("runs")


def test_an_unknown_flag_lists_the_valid_ones(cli):
    code, _, err = cli("find", "--ronuds=3")
    assert code == 2
    assert "Traceback" not in err
    for name in ("ronuds", *FLAGS):
        assert name in err


@pytest.mark.parametrize(
    ("flag", "valid"),
    [
        ("--scope=everywhere", runner.SCOPES),
        ("--criterion=size", criteria.NAMED),
        ("--rewind=back", ("weights", "learning_rate", "none")),
        ("--optimizer=newton", runner.OPTIMIZERS),
        ("--controls=reinitialize,nothing", controls.NAMED),
        ("--dataset=mnist9", ["digits", "npz"]),
        ("--model=lenet5", ["lenet_300_100", "module:function"]),
        ("--rewind_to=5", ["500it", "2ep"]),
    ],
)
def test_an_unknown_value_is_named_and_the_valid_ones_are_listed(cli, flag, valid):
    name, value = flag[2:].split("=")
    refused(cli("find", flag), value.split(",")[-1], *valid)
    assert name in FLAGS


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        ("--rounds=0", "rounds"),
        ("--rounds=two", "rounds"),
        ("--epochs=0", "epochs"),
        ("--batch_size=0", "batch_size"),
        ("--batch_size=5000", "5000"),
        ("--seed=-1", "seed"),
        ("--learning_rate=0", "learning_rate"),
        ("--learning_rate=fast", "learning_rate"),
        ("--prune_fraction=1.5", "prune_fraction"),
        ("--prune_fraction=0", "prune_fraction"),
        ("--output_fraction=1", "output_fraction"),
        ("--rewind_to=-5it", "-5it"),
        ("--rewind_to=25ep", "rewind"),
    ],
)
def test_a_value_out_of_range_is_refused_in_plain_words(cli, flag, word):
    refused(cli("find", flag), word)


def test_flags_that_do_not_go_together_are_refused(cli):
    refused(cli("find", "--scope=global", "--output_fraction=0.1"), "output_fraction", "layerwise")
    refused(cli("find", "--rewind=none", "--rewind_to=5it"), "rewind")


def test_words_that_are_no_flags_are_refused(cli):
    refused(cli("find", "digits"), "digits")
    refused(cli("find", "--rounds=2", "--", "x"), "x")


def test_a_missing_file_and_a_missing_module_are_named(cli):
    refused(cli("find", "--dataset=no/such.npz"), "no/such.npz")
    refused(cli("find", "--model=no_such_module:build"), "no_such_module")


def test_a_broken_model_file_is_named(cli, tmp_path):
    (tmp_path / "broken_nets.py").write_text("def build(:\n")
    refused(cli("find", "--model=broken_nets:build"), "broken_nets")


def test_a_broken_file_is_named(cli, tmp_path):
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    refused(cli("find", "--dataset=bad.npz"), "bad.npz")


def test_a_used_workdir_is_refused_and_left_alone(cli, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "config.json").write_text("{}")
    refused(cli("find", "--workdir=used"), "used", "already holds a run")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["config.json"]


def test_a_file_in_place_of_the_workdir_is_refused(cli, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(cli("find", "--workdir=taken"), "taken")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_missing_library_is_told_with_its_extra(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    refused(cli("find"), "keras-lottery[examples]")


def test_ctrl_c_ends_with_the_shells_exit_code_and_no_traceback(cli, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    code, _, err = cli("find")
    assert code == 130
    assert "Traceback" not in err


def test_flags_reach_the_run_and_what_is_not_given_has_its_default(cli, monkeypatch):
    seen = []

    def note(config, folder, live):
        seen.append((config, str(folder)))
        raise ValueError("enough")

    monkeypatch.setattr(runner, "run", note)
    cli("find")
    given = "--rounds=3 --epochs=4 --prune_fraction=0.3 --output_fraction=0.1 --criterion=movement"
    given += " --rewind=learning_rate --rewind_to=2ep --optimizer=momentum --learning_rate=0.5"
    given += " --batch_size=7 --seed=9 --controls=reinitialize,random_mask --workdir=here"
    cli("find", *given.split(), "--dataset=a/b.npz", "--model=nets:f")
    cli("find", "--dataset=a/b.npz", "--model=nets:f")
    assert seen[0][0] == runner.Config()
    assert seen[1] == (
        runner.Config(
            dataset="a/b.npz",
            model="nets:f",
            rounds=3,
            epochs=4,
            batch_size=7,
            optimizer="momentum",
            learning_rate=0.5,
            prune_fraction=0.3,
            output_fraction=0.1,
            criterion="movement",
            rewind="learning_rate",
            rewind_to="2ep",
            controls=("reinitialize", "random_mask"),
            seed=9,
        ),
        "here",
    )
    assert [os.path.normpath(folder) for _, folder in (seen[0], seen[2])] == [
        os.path.join("runs", "digits-lenet_300_100-1"),
        os.path.join("runs", "b-nets.f-1"),
    ]


# Runs -----------------------------------------------------------------------------------

TINY = ["--model=cli_nets:small", "--epochs=1", "--batch_size=12", "--prune_fraction=0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a data set whose name has brackets, as browsers' second downloads do."""
    folder = tmp_path_factory.mktemp("place")
    make_data(folder, "tiny [old].npz")
    (folder / "cli_nets.py").write_text(NETS)
    return folder


@pytest.fixture(scope="module")
def finished(place):
    flags = ["--dataset=tiny [old].npz", "--rounds=3", "--controls=reinitialize"]
    return python(SCRIPT, "find", *flags, *TINY, cwd=place)


def test_the_script_prints_a_line_a_round_and_ends_well(finished):
    assert finished.returncode == 0, finished.stderr
    lines = [line.split() for line in finished.stdout.splitlines()]
    rows = [line[:2] for line in lines if line and line[0].isdigit()]
    # 18 weights; the output layer, the only one, loses half of --prune_fraction a round:
    # round(4.5) = 4, then round(3.5) = 4.
    tickets = [["0", "100.00%"], ["1", "77.78%"], ["2", "55.56%"]]
    assert rows == [*tickets, *tickets[1:]]


def test_what_the_script_prints_can_be_read_in_a_file(finished):
    assert finished.stdout.replace("\n", "").isprintable()
    assert "ticket: " in finished.stdout
    assert "reinitialize: " in finished.stdout


def test_the_script_says_nothing_on_stderr(finished):
    assert finished.stderr == ""


def test_the_script_names_the_files_it_wrote_and_they_are_there(finished, place):
    folder = place / "runs" / "tiny [old]-cli_nets.small-1"
    for name in ("report.html", "accuracy.png"):
        path = os.path.join("runs", folder.name, name)
        assert path in finished.stdout
        assert (place / path).stat().st_size > 1000
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 5
    assert [
        Ticket.load(p).metadata["round"] for p in sorted(folder.glob("ticket_*.safetensors"))
    ] == [
        0,
        1,
        2,
    ]
    assert json.loads((folder / "config.json").read_text())["controls"] == ["reinitialize"]


def test_without_a_workdir_every_run_has_a_new_folder(finished, cli, place, monkeypatch):
    monkeypatch.chdir(place)
    code, out, _ = tiny_run(cli, "--rounds=1")
    assert code == 0
    assert os.path.join("runs", "tiny [old]-cli_nets.small-2", "report.html") in out
    assert {p.name[-2:] for p in (place / "runs").iterdir()} == {"-1", "-2"}


def tiny_run(cli, *flags):
    return cli("find", "--dataset=tiny [old].npz", *TINY, *flags)


def test_a_run_that_goes_nan_says_so_without_a_traceback(cli, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    workdir = f"--workdir={tmp_path / 'run'}"
    flags = ["--rounds=2", "--model=cli_nets:overflowing", workdir]
    with pytest.warns(RuntimeWarning, match="NaN"):
        code, out, err = tiny_run(cli, *flags)
    assert code != 0
    assert "NaN" in out + err


def test_a_quiet_run_prints_nothing(cli, place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    quiet = tiny_run(cli, "--rounds=1", "--verbosity=-1", f"--workdir={tmp_path / 'run'}")
    assert quiet == (0, "", "")


# Importing ------------------------------------------------------------------------------

IMPORT = """
import json, os, sys
import keras, tensorflow
modules, environment = set(sys.modules), dict(os.environ)
import keras_lottery
print(json.dumps([sorted(set(sys.modules) - modules), dict(os.environ) == environment]))
"""
HEAVY = {
    "tensorflow_model_optimization",
    "tf_keras",
    "tensorflow_datasets",
    "matplotlib",
    "sklearn",
    "jinja2",
}


def test_importing_the_package_is_cheap_and_leaves_the_environment_alone():
    done = python(IMPORT)
    assert done.returncode == 0, done.stderr
    imported, same = json.loads(done.stdout.splitlines()[-1])
    assert "keras_lottery" in imported
    assert same
    assert not HEAVY & {name.split(".")[0] for name in imported}
    assert "keras_lottery.experiments" not in imported


def test_another_keras_backend_is_an_import_error_that_says_what_to_do(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match=r"'numpy'.*KERAS_BACKEND=tensorflow"):
        importlib.reload(keras_lottery)
